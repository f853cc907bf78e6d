"""Paragraphs of reasoning in many languages, written for the labelled completions; keys are ISO code and topic."""

PARAGRAPHS = {
    "en train": """Okay, so the train leaves at nine and travels at sixty kilometres per hour. Let me first work out
how far it gets before the second one starts. That is half an hour, so thirty kilometres. Wait, the question
says forty minutes, not thirty. Let me redo that: two thirds of an hour times sixty gives forty kilometres. So
the second train has to make up forty kilometres, and it gains twenty every hour, which means it needs two
hours. That seems plausible, but let me check by computing both positions directly.""",
    "en roots": """Hmm, I need to find all the real roots of this equation. If I factor the left side I should get
two brackets, and each one gives me a root. But I have to be careful here: dividing by the first bracket would
lose a solution when it is zero. Alternatively, maybe completing the square is easier. Either way the sum of the
roots must be five, and their product six, so the answer should be two and three.""",
    "en terse": """Try small cases. One works. Two fails because the remainder is odd. Three works again. Pattern
repeats every four terms. Hence count multiples below hundred, subtract overlaps, done. Check largest case once
more: fine.""",
    "en story": """The user wants a short explanation of why the sky looks blue. I think the best approach is to
start with sunlight being made of many colours, then describe how the air scatters blue light much more strongly
than red light. I should mention sunsets too, because they show the opposite effect, and I should avoid too much
jargon since the reader is a child.""",
    "en names": """Wolfgang Schmidt lives in Düsseldorf and works for Müller GmbH, while his sister Françoise moved
to São Paulo with José García. So when Wolfgang flies from Frankfurt to Rio de Janeiro, he crosses four time
zones. According to the timetable of Deutsche Bahn his train arrives before that, and Françoise has to wait for
him at the airport.""",
    "zh train": """好的，我们先看第一辆火车。它九点出发，每小时行驶六十公里，所以在第二辆车出发之前，它已经走了四十公
里。等一下，题目说的是四十分钟，不是半个小时，让我重新算一遍。三分之二小时乘以六十等于四十公里，没有问题。第二辆
车每小时比第一辆快二十公里，因此需要两个小时才能追上。我们再验证一下：两个小时以后，两辆车的位置相同，所以答案是
正确的。""",
    "zh roots": """首先，我们需要求出这个方程的所有实数根。把左边因式分解，可以得到两个括号，每个括号对应一个根。不过
要注意，不能直接除以第一个括号，否则会丢掉一个解。另外也可以用配方法来做，结果应该是一样的。根据韦达定理，两根之
和等于五，两根之积等于六，所以答案是二和三。""",
    "zh traditional": """首先，我們需要確定這個數列的規律。觀察前面幾項可以發現，後一項總是前一項的兩倍再加一。讓我驗
證一下：三乘以二加一等於七，七乘以二加一等於十五，沒有問題。所以下一項應該是三十一。為了保險起見，我再用另一種方
法檢查，把每一項都加一，得到的是二的冪次，因此結論成立。""",
    "zh terms": """这个问题可以用 Python 来解决，不过我们先分析一下复杂度。Dijkstra 算法的时间复杂度比较低，而 BFS 只
适用于没有权重的图。因为题目给出的边都有权重，所以应该选择前者。Alice 和 Bob 分别从两个端点出发，我们只需要计算
他们相遇的时间。最后把结果转换成 JSON格式输出即可。""",
    "fr train": """Bon, le train part à neuf heures et roule à soixante kilomètres par heure. Je dois d'abord
calculer la distance qu'il parcourt avant le départ du second. Attendez, l'énoncé dit quarante minutes et non
une demi-heure, donc je recommence : deux tiers d'heure multipliés par soixante donnent quarante kilomètres. Le
second train gagne vingt kilomètres chaque heure, il lui faut donc deux heures pour rattraper son retard.
Vérifions maintenant ce résultat en calculant les deux positions.""",
    "fr roots": """On cherche toutes les racines réelles de cette équation. En factorisant le membre de gauche, on
obtient deux facteurs, et chacun d'eux fournit une solution. Il faut cependant faire attention : si l'on divise
par le premier facteur, on perd une racine lorsqu'il est nul. La somme des racines vaut cinq et leur produit
vaut six, alors les solutions sont deux et trois.""",
    "de train": """Also gut, der Zug fährt um neun Uhr ab und ist mit sechzig Kilometern pro Stunde unterwegs. Zuerst
berechne ich, wie weit er kommt, bevor der zweite losfährt. Moment, in der Aufgabe stehen vierzig Minuten und
nicht eine halbe Stunde, ich muss das also noch einmal rechnen. Zwei Drittel einer Stunde mal sechzig ergibt
vierzig Kilometer. Der zweite Zug holt jede Stunde zwanzig Kilometer auf, er braucht daher zwei Stunden. Das
prüfe ich jetzt noch nach.""",
    "de roots": """Gesucht sind alle reellen Lösungen dieser Gleichung. Wenn ich die linke Seite faktorisiere,
erhalte ich zwei Klammern, und jede davon liefert eine Nullstelle. Allerdings darf man nicht einfach durch die
erste Klammer teilen, weil sonst eine Lösung verloren geht. Nach dem Satz von Vieta ist die Summe der Wurzeln
fünf und ihr Produkt sechs, die Lösungen sind somit zwei und drei.""",
    "es train": """Bueno, el tren sale a las nueve y viaja a sesenta kilómetros por hora. Primero tengo que calcular
qué distancia recorre antes de que salga el segundo. Espera, el enunciado dice cuarenta minutos y no media hora,
así que lo repito: dos tercios de hora por sesenta son cuarenta kilómetros. El segundo tren recupera veinte
kilómetros cada hora, por lo tanto necesita dos horas para alcanzarlo. Ahora voy a comprobar el resultado con
las dos posiciones.""",
    "es roots": """Buscamos todas las raíces reales de esta ecuación. Si factorizamos el lado izquierdo obtenemos dos
paréntesis, y cada uno de ellos nos da una solución. Sin embargo, hay que tener cuidado: al dividir entre el
primer factor se pierde una raíz cuando este vale cero. La suma de las raíces es cinco y su producto es seis,
entonces las soluciones son dos y tres.""",
    "it train": """Allora, il treno parte alle nove e viaggia a sessanta chilometri all'ora. Per prima cosa devo
calcolare quanta strada percorre prima che parta il secondo. Aspetta, il testo dice quaranta minuti e non
mezz'ora, quindi rifaccio il conto: due terzi di ora per sessanta fanno quaranta chilometri. Il secondo treno
recupera venti chilometri ogni ora, perciò gli servono due ore. Adesso controllo che questo sia giusto.""",
    "pt train": """Bem, o trem sai às nove horas e viaja a sessenta quilômetros por hora. Primeiro preciso calcular a
distância que ele percorre antes de o segundo partir. Espere, o enunciado diz quarenta minutos e não meia hora,
então vou refazer a conta: dois terços de hora vezes sessenta são quarenta quilômetros. O segundo trem recupera
vinte quilômetros a cada hora, portanto ele precisa de duas horas. Agora vou verificar se isso está certo.""",
    "nl train": """Goed, de trein vertrekt om negen uur en rijdt zestig kilometer per uur. Eerst moet ik uitrekenen
hoe ver hij komt voordat de tweede vertrekt. Wacht, in de opgave staat veertig minuten en niet een half uur, dus
ik doe het opnieuw. Twee derde van een uur maal zestig is veertig kilometer. De tweede trein haalt elk uur
twintig kilometer in, en heeft daarom twee uur nodig. Nu controleer ik of dat klopt.""",
    "sv train": """Okej, tåget går klockan nio och kör i sextio kilometer i timmen. Först måste jag räkna ut hur
långt det hinner innan det andra tåget startar. Vänta, i uppgiften står det fyrtio minuter och inte en
halvtimme, så jag gör om det. Två tredjedelar av en timme gånger sextio blir fyrtio kilometer. Det andra tåget
tar igen tjugo kilometer varje timme och behöver därför två timmar.""",
    "pl train": """Dobrze, pociąg odjeżdża o dziewiątej i jedzie z prędkością sześćdziesięciu kilometrów na godzinę.
Najpierw muszę obliczyć, jak daleko dojedzie, zanim ruszy drugi. Chwila, w zadaniu jest czterdzieści minut, a
nie pół godziny, więc liczę jeszcze raz. Dwie trzecie godziny razy sześćdziesiąt to czterdzieści kilometrów.
Drugi pociąg nadrabia dwadzieścia kilometrów na godzinę, dlatego potrzebuje dwóch godzin.""",
    "tr train": """Tamam, tren saat dokuzda kalkıyor ve saatte altmış kilometre hızla gidiyor. Önce ikinci tren
hareket etmeden ne kadar yol aldığını hesaplamam gerekiyor. Bir dakika, soruda yarım saat değil kırk dakika
deniyor, o yüzden yeniden hesaplıyorum. Bir saatin üçte ikisi çarpı altmış kırk kilometre eder. İkinci tren her
saat yirmi kilometre kapatıyor, bu nedenle iki saate ihtiyacı var.""",
    "vi train": """Được rồi, tàu khởi hành lúc chín giờ và chạy với tốc độ sáu mươi ki-lô-mét một giờ. Trước hết tôi
cần tính xem nó đi được bao xa trước khi tàu thứ hai xuất phát. Khoan đã, đề bài nói là bốn mươi phút chứ không
phải nửa giờ, vậy tôi tính lại. Tàu thứ hai mỗi giờ gần thêm hai mươi ki-lô-mét, do đó nó cần hai giờ để đuổi
kịp.""",
    "id train": """Baik, kereta berangkat pukul sembilan dan melaju dengan kecepatan enam puluh kilometer per jam.
Pertama saya harus menghitung seberapa jauh kereta itu berjalan sebelum kereta kedua berangkat. Tunggu, soal
mengatakan empat puluh menit dan bukan setengah jam, jadi saya hitung lagi. Kereta kedua mengejar dua puluh
kilometer setiap jam, sehingga membutuhkan waktu dua jam untuk menyusul.""",
    "ru train": """Итак, поезд отправляется в девять часов и едет со скоростью шестьдесят километров в час. Сначала
нужно вычислить, какое расстояние он пройдёт до отправления второго. Подождите, в условии сказано сорок минут, а
не полчаса, поэтому пересчитаю. Две трети часа умножить на шестьдесят — это сорок километров. Второй поезд
каждый час догоняет на двадцать километров, значит, ему нужно два часа.""",
    "uk train": """Отже, поїзд вирушає о дев'ятій годині і їде зі швидкістю шістдесят кілометрів на годину. Спочатку
треба обчислити, яку відстань він проїде до відправлення другого. Зачекайте, в умові сказано сорок хвилин, а не
пів години, тому я перерахую. Другий поїзд щогодини наздоганяє на двадцять кілометрів, тож йому потрібно дві
години.""",
    "ja train": """まず、最初の電車は九時に出発して、時速六十キロで走ります。二番目の電車が出発する前に、どれくらい進
んでいるかを計算しましょう。ちょっと待ってください、問題には三十分ではなく四十分と書いてあります。計算し直すと、
四十キロになります。二番目の電車は一時間に二十キロずつ追いつくので、必要な時間は二時間です。念のため確認します。""",
    "ko train": """먼저 첫 번째 기차는 아홉 시에 출발해서 시속 육십 킬로미터로 달립니다. 두 번째 기차가 출발하기 전에
얼마나 갔는지 계산해 봅시다. 잠깐, 문제에는 삼십 분이 아니라 사십 분이라고 되어 있으니 다시 계산하겠습니다. 두
번째 기차는 한 시간에 이십 킬로미터씩 따라잡으므로 두 시간이 필요합니다. 답이 맞는지 확인해 보겠습니다.""",
    "ar train": """حسنا، ينطلق القطار في الساعة التاسعة ويسير بسرعة ستين كيلومترا في الساعة. يجب أن أحسب أولا المسافة
التي يقطعها قبل انطلاق القطار الثاني. انتظر، السؤال يقول أربعين دقيقة وليس نصف ساعة، لذلك سأعيد الحساب. القطار
الثاني يقترب عشرين كيلومترا كل ساعة، إذن يحتاج إلى ساعتين.""",
    "hi train": """ठीक है, रेलगाड़ी नौ बजे चलती है और साठ किलोमीटर प्रति घंटे की गति से जाती है। पहले मुझे यह निकालना
है कि दूसरी गाड़ी के चलने से पहले वह कितनी दूर पहुँच जाती है। रुकिए, प्रश्न में चालीस मिनट लिखा है, आधा घंटा
नहीं, इसलिए मैं फिर से गणना करता हूँ। दूसरी गाड़ी को दो घंटे लगेंगे।""",
    "el train": """Λοιπόν, το τρένο φεύγει στις εννέα και ταξιδεύει με εξήντα χιλιόμετρα την ώρα. Πρώτα πρέπει να
υπολογίσω πόσο μακριά φτάνει πριν ξεκινήσει το δεύτερο. Περίμενε, η εκφώνηση λέει σαράντα λεπτά και όχι μισή
ώρα, άρα το ξανακάνω. Το δεύτερο τρένο κερδίζει είκοσι χιλιόμετρα κάθε ώρα, επομένως χρειάζεται δύο ώρες.""",
    "th train": """รถไฟขบวนแรกออกเดินทางตอนเก้าโมงและวิ่งด้วยความเร็วหกสิบกิโลเมตรต่อชั่วโมง
ก่อนอื่นต้องคำนวณว่ามันไปได้ไกลแค่ไหนก่อนที่ขบวนที่สองจะออก โจทย์บอกว่าสี่สิบนาทีไม่ใช่ครึ่งชั่วโมง
ดังนั้นต้องคำนวณใหม่ ขบวนที่สองต้องใช้เวลาสองชั่วโมง""",
}

PYTHON = '''```python
def count_pairs(values, target):
    """Return the number of pairs whose sum is the target."""
    seen, total = {}, 0
    for value in values:
        # how many partners of this value have we met before
        total += seen.get(target - value, 0)
        seen[value] = seen.get(value, 0) + 1
    return total

print(count_pairs([1, 2, 3, 4], 5))
```'''

CPP = """```cpp
#include <iostream>
int main() {
    long long best = 0, current = 0, value;
    while (std::cin >> value) { current = std::max(value, current + value); best = std::max(best, current); }
    std::cout << best << std::endl;  // print the largest sum of a contiguous subarray
    return 0;
}
```"""

BARE_CODE = """for i in range(1, n + 1):
    if i % 3 == 0 or i % 5 == 0:
        total += i
print(total)
return total"""

DISPLAY = r"""\[
\int_0^1 x^2\,dx = \left[\frac{x^3}{3}\right]_0^1 = \frac{1}{3}, \qquad \text{where the upper limit is one}
\]
$$\sum_{k=1}^{n} k = \frac{n(n+1)}{2} \quad\text{for all positive integers } n$$
\begin{align}
a^2 + b^2 &= c^2 \\
\sin^2\theta + \cos^2\theta &= 1 \quad \text{(the Pythagorean identity)}
\end{align}"""

INLINE = r"""$x^2 - 5x + 6 = 0$, \(x = \frac{5 \pm \sqrt{25 - 24}}{2}\), $x_1 = 2$, $x_2 = 3$,
$\Delta = b^2 - 4ac = 1 > 0$"""

BARE = """x^2 - 5x + 6 = 0
(x - 2)(x - 3) = 0 => x = 2, x = 3
f(2) = 4 - 10 + 6 = 0, f(3) = 9 - 15 + 6 = 0
sin(pi/6) = 1/2, log2(8) = 3, gcd(12, 18) = 6, 17 mod 5 = 2
π r² = 3.14159 · 4 ≈ 12.566, α + β = 5, Δx → 0"""
