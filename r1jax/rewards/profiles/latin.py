"""Further languages in Latin letters."""

from r1jax.rewards.profiles.profile import Profile

NORTHERN = (
    Profile(
        "sv",
        "swedish",
        "latin",
        """och att det som en ett är på för med av den till inte om har de jag vi han hon du man kan så men var från
        eller när där hur vad vem vilket vilken vilka också bara mycket mer mindre mellan efter innan under över
        utan genom ska skall måste får blir blev vara varit hade detta denna dessa alla allt varje annan andra
        någon något några ingen inget två tre fyra fem sex sju åtta nio tio tjugo trettio fyrtio femtio sextio
        hundra första därför alltså eftersom dock nu först sedan sen igen alltid aldrig här samma lika tal talet
        summan produkten räkna räknar lösning ekvationen svar svaret timme timmar timmen vänta bra ja nej kanske
        rätt fel hälften gånger klockan oss mig sig sin sitt sina""",
        "ning ningar ade het erna arna orna ligt liga skap",
        "åäö",
    ),
    Profile(
        "da",
        "danish",
        "latin",
        """og at det som en et er på for med af den til ikke om har de jeg vi han hun du man kan så men var fra eller
        når hvor hvordan hvad hvem hvilken hvilket hvilke også kun meget mere mindre mellem efter før under over
        uden gennem skal må får bliver blev være været havde dette denne disse alle alt hver anden andre nogen
        noget nogle ingen intet to tre fire fem seks syv otte ni ti tyve tredive fyrre hundrede første derfor
        altså fordi dog nu først så igen altid aldrig her samme lig tal tallet summen produktet beregne regner
        løsning ligningen svar svaret time timer vent godt ja nej måske rigtigt halvdelen gange klokken os mig sig
        sin sit sine""",
        "ning ninger ede hed erne ende ligt lige skab",
        "åøæ",
    ),
    Profile(
        "no",
        "norwegian",
        "latin",
        """og at det som en et ei er på for med av den til ikke om har de jeg vi han hun du man kan så men var fra
        eller når hvor hvordan hva hvem hvilken hvilket hvilke også bare mye mer mindre mellom etter før under
        over uten gjennom skal må får blir ble være vært hadde dette denne disse alle alt hver annen andre noen
        noe ingen to tre fire fem seks sju syv åtte ni ti tjue tretti førti hundre første derfor altså fordi
        likevel nå først så igjen alltid aldri her samme lik tall tallet summen produktet beregne regner løsning
        likningen svar svaret time timer vent bra ja nei kanskje riktig halvparten ganger klokka klokken oss meg
        seg sin sitt sine""",
        "ning ninger het ene ende lig lige skap",
        "åøæ",
    ),
    Profile(
        "fi",
        "finnish",
        "latin",
        """ja on ei että se en hän oli olla ovat mutta kun niin kuin myös tai jos joka jotka mikä mitä missä miten
        miksi tämä tämän nämä ne sen siis koska joten sitten nyt ensin vielä aina vain enemmän vähemmän kaikki
        jokainen toinen kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän kymmenen sata ensimmäinen minun
        minä sinä me te he luku lukujen summa tulo yhtälö ratkaisu vastaus tulos tunti tuntia lasketaan saadaan
        pitää täytyy voi voidaan ovatko kuitenkin mukaan jälkeen ennen välillä odota hyvä kyllä""",
        "ssa ssä sta stä lla llä lta ltä lle ksi tta ttä nen iin een aan uun inen iset isia",
        "äö",
    ),
)
CENTRAL = (
    Profile(
        "pl",
        "polish",
        "latin",
        """i w z na do że się nie to jest są był była było być o po za od dla przez przy pod nad bez ze we ale lub
        albo czy jak jaki jaka jakie który która które których gdy kiedy gdzie więc zatem dlatego ponieważ bo
        jednak także też tylko już jeszcze bardzo więcej mniej każdy każda każde wszystkie inny inne ten ta te
        tego tej tym tych co kto ja ty on ona my wy oni mam ma mają można trzeba musi muszę musimy może mogą dwa
        dwie trzy cztery pięć sześć siedem osiem dziewięć dziesięć sto pierwszy pierwsza drugi druga najpierw
        potem teraz znowu raz zawsze nigdy liczba liczby suma iloczyn równa równanie rozwiązanie odpowiedź wynik
        godzina godziny godzin sprawdzam sprawdźmy obliczyć dobrze tak połowa""",
        "ość ości anie enie ego ymi ych ach ami owy owa owe ować łem liśmy my",
        "ąęłńśźżó",
    ),
    Profile(
        "cs",
        "czech",
        "latin",
        """a v z na do že se ne to je jsou byl byla bylo být o po za od pro před při pod nad bez ze ve ale nebo jak
        jaký který která které když kde kdy proto protože tedy takže však také jen už ještě velmi více méně každý
        každá všechny jiný ten ta ty tento tato toto těch co kdo já ty on ona my vy oni mám má mají lze musí
        musíme může mohou dva dvě tři čtyři pět šest sedm osm devět deset sto první druhý druhá nejprve potom nyní
        znovu vždy nikdy číslo čísla součet součin rovná rovnice řešení odpověď výsledek hodina hodiny hodin dobře
        ano polovina jsem jsme aby než či""",
        "ost osti ání ení ého ých ami ový ová ové ovat",
        "ěřůťďýčšžáíú",
    ),
    Profile(
        "hu",
        "hungarian",
        "latin",
        """a az és hogy nem is egy ez azt ezt meg de ha van volt vagy mint csak már még el ki be fel le mert tehát
        ezért akkor most először majd után előtt között szerint minden más két kettő három négy öt hat hét nyolc
        kilenc tíz száz első második kell lehet lesz legyen vannak nincs én te ő mi ti ők aki ami amely hol mikor
        miért hogyan szám számok összege szorzata egyenlet megoldás válasz eredmény óra órát várj jó igen fele
        ellenőrizzük számoljuk kapjuk""",
        "ban ben nak nek ból ből tól től hoz hez val vel ság ség ásra unk ünk",
        "őűáéíóöúü",
    ),
    Profile(
        "ro",
        "romanian",
        "latin",
        """și în de la cu pe din că nu este sunt era a fi un o unei unui lui ei care ce mai dar sau dacă când unde
        cum pentru prin între după înainte fără despre atunci deci astfel deoarece totuși foarte mult puțin
        fiecare toate toți alt altă acest această acesta aceste acel acea două trei patru cinci șase șapte opt
        nouă zece sută primul prima doua acum întâi iar apoi mereu niciodată număr numere suma produsul egal
        ecuație soluție răspuns rezultat oră ore bine da trebuie poate putem avem am are au se îl îi le mă te ne
        jumătate verificăm calculăm obținem""",
        "ului ilor ele ază ească ații ție iune ător eau",
        "șțăâî",
    ),
    Profile(
        "hr",
        "croatian",
        "latin",
        """i u na je se da su za od do sa iz po ne nije to ovo ono što koji koja koje kako kada gdje gde ali ili ako
        jer zato dakle stoga međutim također samo već još vrlo više manje svaki svaka sve drugi druga taj ta te
        ovaj ova ove bio bila bilo biti smo sam si ste mi vi oni ja ti on ona ima imaju može možemo moramo treba
        dva dvije tri četiri pet šest sedam osam devet deset sto prvi prva prvo zatim onda sada opet uvijek nikad
        broj brojevi zbroj umnožak jednak jednadžba rješenje odgovor rezultat sat sata sati dobro polovica
        provjerimo dobijemo između prije nakon""",
        "nje nja ost osti ije ama ima ovi ski ska ati iti",
        "đćčšž",
    ),
)
EASTERN = (
    Profile(
        "tr",
        "turkish",
        "latin",
        """ve bir bu da de için ile ne çok daha en gibi kadar ama fakat ancak veya ya ki mi mı mu mü olan olarak olur
        oldu olduğu var yok değil her şey şu o ben sen biz siz onlar nasıl neden nerede hangi kaç çünkü bu yüzden
        nedenle dolayı sonra önce şimdi tekrar yeniden hiç hep bütün tüm diğer iki üç dört beş altı yedi sekiz
        dokuz on yirmi otuz kırk elli altmış yüz birinci ikinci ilk gerekiyor gerekir eder eşit sayı sayısı
        sayılar toplam toplamı çarpım çarpımı denklem çözüm cevap sonuç saat dakika bekle tamam evet hayır yarım
        yarısı kere göre arasında bulalım hesaplayalım kontrol edelim""",
        "lar ler ları leri dır dir dur dür mak mek yor ıyor iyor ında inde dan den nın nin acak ecek lık lik",
        "ığşçöü",
    ),
    Profile(
        "vi",
        "vietnamese",
        "latin",
        """và của là có không được trong cho với các một những này đó khi từ đã sẽ để thì mà như ra vào người nếu vì
        nên do vậy tôi ta chúng bạn nó họ phải cần tính xem lại hai ba bốn năm sáu bảy tám chín mười trăm số tổng
        tích bằng phương trình nghiệm đáp án kết quả giờ phút nhưng hoặc cũng rất hơn nhất mỗi mọi trước sau đây
        kia sao nào gì ai đâu bao nhiêu đúng sai bước đầu tiên tiếp theo cuối cùng kiểm tra bài toán đề""",
        "",
        "ơưđăạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    ),
    Profile(
        "id",
        "indonesian",
        "latin",
        """dan yang di ke dari untuk pada dengan ini itu tidak bukan adalah akan sudah telah bisa dapat harus atau
        jika kalau maka jadi karena sehingga oleh agar tetapi namun juga hanya lebih kurang sangat semua setiap
        lain saya aku kamu anda dia ia kami kita mereka ada apa siapa mana kapan bagaimana mengapa berapa dua tiga
        empat lima enam tujuh delapan sembilan sepuluh seratus puluh pertama kedua ketiga lalu kemudian sekarang
        lagi selalu jumlah hasil kali sama bilangan angka persamaan solusi jawaban jam menit tunggu baik ya
        setengah menghitung hitung periksa sebelum sesudah setelah antara seperti secara saat sebuah seorang
        tersebut yaitu kasus kecil besar coba dahulu mari soal""",
        "kan nya annya asi itas lah",
        "",
    ),
    Profile(
        "ca",
        "catalan",
        "latin",
        """el la els les un una uns unes de del dels al als i o que en és són està amb per sense sobre entre fins des
        no es seu seva més menys molt com quan on qui però si també perquè doncs així ara després abans aquest
        aquesta aquests aquestes aquell això tot tots tota totes cada altre altra mateix mateixa hi ha han havia
        té tenen tenim pot poden podem cal fer fa dos dues tres quatre cinc sis set vuit nou deu vint trenta cent
        primer primera segon segona nombre nombres suma producte equació solució resposta resultat hora hores
        espera bé meitat vegades he hem cas casos igual iguals parell senar residu arrel resta llavors aleshores
        suposo suposem cerca sigui siguin absurd dir diu pas enunciat segur""",
        "ció cions tat tats ment esa",
        "ŀàèéíòóúïç",
    ),
)
