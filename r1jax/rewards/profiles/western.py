"""English and the languages of western Europe that are asked for most."""

from r1jax.rewards.profiles.profile import Profile

ENGLISH = Profile(
    "en",
    "english",
    "latin",
    """the of and to in is that it was for on are as with his they at be this have from or had by but not what all
    were we when your can said there use an each which she do how their if will up other about out many then
    them these so some her would make like him into time has look two more go see no way could my than first
    been call who its now find long down did get made may part over new sound take only little work know place
    years live me back give most very after our just name good sentence man think say great where help through
    much before line right too means old any same tell boy follow came want show also around form three small
    set put end does another well large must big even such because turn here why ask went men read need land
    different us move try kind again off play away let therefore hence thus since while until whether however
    although though both either neither every one four five six seven eight nine ten eleven twelve hundred half
    third twice once wait maybe perhaps actually alternatively okay hmm alright sure yes check answer question
    equal equals sum product difference total number numbers divide divided multiply multiplied plus minus times
    greater less least without within between should being am you i he won't don't doesn't isn't let's that's
    it's i'm i'll we're can't didn't they're there's what's wrong false true case cases step given assume
    suppose compute calculate consider verify notice recall simplify substitute subtract add added remainder
    even odd integer root square solution solve problem follows using gives becomes become got gets left side
    next last few still yet never always often quite rather seems might shall cannot whose whom those his hers
    theirs itself himself themselves myself yourself against during under above below across behind toward
    towards among upon per something anything nothing everything someone anyone everyone else ago already almost
    enough instead indeed finally second secondly firstly result results value values correct incorrect because
    exactly simply directly together translate write explain describe find determine prove list points cost
    costs half many
    arithmetic easy clearly obvious obviously known term terms trivial simple contradiction claim proof conclude
    apply works real rest fall divisible""",
    "ing ed tion ness ould ight ough ther tions ings edly ally ful less able ably ity ous ment ments ence ance ship",
    "",
)
FRENCH = Profile(
    "fr",
    "french",
    "latin",
    """le la les un une des du de et est en que qui dans pour pas sur au aux ce cette ces cet il elle ils elles
    nous vous je tu on se sa son ses leur leurs mon ma mes ton ta tes notre votre plus ne avec par sont ou où
    mais comme si tout tous toute toutes être avoir fait faire peut peuvent donc alors car ainsi aussi bien même
    très sans sous entre chaque autre autres deux trois quatre cinq six sept huit neuf dix onze douze vingt
    trente quarante cinquante soixante cent mille premier première deuxième second seconde dernier d'abord
    ensuite puis enfin puisque lorsque quand lorsqu'il parce qu'il qu'elle qu'on c'est n'est s'il l'on d'un
    d'une j'ai faut doit doivent dois était étaient sera seront ont ai as avons avez suis sommes êtes ici là
    voici voilà cela ça ceci celui celle ceux celles dont quel quelle quels quelles combien pourquoi comment
    cependant toutefois néanmoins pourtant après avant pendant depuis jusqu'à vers chez moins fois moitié nombre
    nombres somme produit égal égale vaut calculer calcule calculons vérifier vérifions trouver trouve cherche
    cherchons obtient obtenons donne reste résultat réponse équation solution problème heure heures attendez
    attention bon oui non peut-être encore déjà toujours jamais rien aucun aucune quelque plusieurs beaucoup peu
    assez trop afin selon lui eux moi toi soit étant ayant réponses n'y y-a a-t-il est-ce exactes nul seul seule
    cas pair impair pairs impairs racine racines réel réelle réels absurde immédiat immédiate évident évidente pose
    posons suppose supposons hypothèse montrons appliquons récurrence suite aire aires égaux égales vérification
    calcul calculs preuve exact connu connue simple trivial contradiction positif négatif entier entiers mal
    divisible question place part large total note""",
    "eux euse aux ement ements ère èrent aient ait ais ons ez ée ées és ique iques ité oire ois",
    "çèêëîïùûœéàâô",
)
GERMAN = Profile(
    "de",
    "german",
    "latin",
    """der die das den dem des ein eine einen einem einer eines und ist sind war waren wird werden wurde wurden hat
    haben hatte kann können konnte muss müssen soll sollen will wollen darf dürfen ich du er sie es wir ihr mich
    mir dich dir ihn ihm uns euch ihnen mein meine dein sein seine ihre ihrer unser nicht kein keine keinen auch
    nur noch schon aber oder denn wenn dann als wie wo was wer wann warum weil dass ob damit also daher deshalb
    somit folglich jedoch allerdings zwar sondern auf aus bei mit nach seit von vom zu zum zur in im ins an am
    um für durch gegen ohne über unter vor hinter neben zwischen bis so sehr mehr weniger viel viele alle alles
    jede jeder jedes jeden dieser diese dieses diesen diesem welche welcher welches hier da dort jetzt nun
    zuerst zunächst danach schließlich wieder einmal immer nie nichts etwas man sich selbst zwei drei vier fünf
    sechs sieben acht neun zehn elf zwölf zwanzig dreißig vierzig fünfzig sechzig hundert tausend erste ersten
    zweite zweiten dritte gleich zahl zahlen summe produkt rechnen berechne berechnen ergibt ergeben gilt prüfen
    prüfe lösung lösungen gleichung aufgabe antwort ergebnis stunde stunden moment warte gut ja nein vielleicht
    eigentlich natürlich richtig falsch stimmt setze setzen erhalte erhalten folgt ist's beide beiden gibt geben
    macht lässt hätte wäre würde könnte sollte bitte davon daraus dabei dazu daran
    sei seien gerade ungerade reell reelle ganze fall fälle beweis behauptung widerspruch annahme probe induktion
    klar passt fertig einfach einfache sehen mal rest winkel teilbar trivial bekannt einsetzen anwenden
    plus minus term""",
    "ung ungen enz anz lich liche lichen keit heit isch ische ischen schaft chen ieren iert enden ster sten tet tst",
    "ßäöü",
)
SPANISH = Profile(
    "es",
    "spanish",
    "latin",
    """el la los las un una unos unas de del al y e o u que en es son está están era fue ser estar por para con sin
    sobre entre hasta desde no se su sus lo le les me te nos mi mis tu tus más menos muy como cuando donde quien
    cual cuales qué cómo cuándo dónde quién cuál pero si sí también porque pues entonces así luego por tanto
    además aunque sin embargo ya todo todos toda todas cada otro otra otros otras este esta estos estas ese esa
    esos esas eso esto aquel aquella mismo misma ha han he hemos había hay tiene tienen tengo tenemos puede
    pueden podemos puedo debe deben debemos hacer hace hacemos voy vamos va van dos tres cuatro cinco seis siete
    ocho nueve diez once doce veinte treinta cuarenta cincuenta sesenta cien mil primer primero primera segundo
    segunda tercero último uno ahora después antes mientras nunca siempre nada algo alguien nadie alguno alguna
    ningún ninguna número números suma producto igual calcular calculamos comprobar comprobamos verificar
    encontrar obtenemos obtiene resultado respuesta solución soluciones ecuación problema hora horas espera
    bueno bien correcto mitad veces vez según hacia contra durante mediante sea sean sería tal vez quizás aquí
    allí él ella ellos ellas nosotros usted ustedes yo mucho mucha muchos poco luego dado dada tenemos necesita
    necesitamos queda quedan da dan vale falta enunciado
    par pares impar impares raíz raíces real reales cálculo simple trivial absurdo hipótesis supongamos supongo
    veamos término caso casos paso conocido exacto positivo negativo resto entero enteros divisible total divide""",
    "ción ciones dad dades mente ando iendo amos emos imos aban ían aron ieron ado idos adas illa izar eza",
    "ñáéíóú",
)
ITALIAN = Profile(
    "it",
    "italian",
    "latin",
    """il lo la i gli le un uno una di del dello della dei degli delle a al allo alla ai agli alle da dal dalla dai
    dalle in nel nello nella nei negli nelle su sul sulla sui sulle con per tra fra e ed o che chi cui non è
    sono era erano sei siamo essere avere ha hanno ho abbiamo aveva questo questa questi queste quello quella
    quelli quelle quindi allora perciò dunque poi però ma anche ancora già più meno molto molti poco come quando
    dove perché se si ci ne mi ti vi suo sua suoi sue loro mio mia tuo nostro tutto tutti tutta tutte ogni altro
    altra altri altre stesso stessa due tre quattro cinque sette otto nove dieci undici dodici venti trenta
    quaranta cinquanta sessanta cento mille primo prima secondo seconda terzo ultimo dopo adesso ora mentre
    sempre mai niente nulla qualcosa può possono possiamo posso deve devono devo dobbiamo fare fa fanno facciamo
    viene dà ottiene otteniamo numero numeri somma prodotto uguale calcolare calcoliamo verificare verifichiamo
    trovare risultato risposta soluzione soluzioni equazione problema ore aspetta bene corretto giusto metà
    volte volta secondo verso contro durante senza sia sarà sarebbe cioè infatti inoltre invece tuttavia oppure
    entrambi entrambe dell'equazione l'altro c'è dato data quale quali quanto quanta
    pari dispari radice radici reale reali calcolo semplice assurdo ipotesi supponiamo termine caso casi passo
    esatto positivo negativo resto intero interi divide""",
    "zione zioni mente ità ando endo iamo ebbe evano avano ezza aggio ggio cchi glia ato uto ita ssimo",
    "ìòàèéù",
)
PORTUGUESE = Profile(
    "pt",
    "portuguese",
    "latin",
    """o a os as um uma uns umas de do da dos das em no na nos nas num numa por pelo pela pelos pelas para com sem
    sobre entre até desde e ou que quem qual quais não é são está estão era foi ser estar ter tem têm tenho
    temos havia há se seu sua seus suas meu minha lhe me te ele ela eles elas eu nós você vocês isso isto este
    esta esse essa aquele aquela mais menos muito muita muitos como quando onde porque pois então assim logo
    portanto também mas porém ainda já todo todos toda todas tudo cada outro outra outros outras mesmo mesma
    dois duas três quatro cinco seis sete oito nove dez onze doze vinte trinta quarenta cinquenta sessenta cem
    mil primeiro primeira segundo segunda último agora depois antes enquanto nunca sempre nada algo alguém pode
    podem podemos posso deve devem devemos fazer faz fazemos vou vamos vai vão número números soma produto igual
    calcular calculamos verificar verificamos encontrar obtemos resultado resposta solução soluções equação
    problema hora horas espere bem certo correto metade vezes vez contra durante seja sejam seria talvez aqui
    ali dado dada ao à aos às nesse neste dessa deste disso qualquer algum alguma nenhum nenhuma
    par pares ímpar ímpares raiz raízes real reais cálculo simples trivial absurdo hipótese suponhamos termo caso
    casos passo exato positivo negativo resto inteiro inteiros total divide""",
    "ção ções dade dades mente ando endo indo amos emos aram eram iram ões ães eiro eira inho agem",
    "ãõáâéêíóôúàç",
)
DUTCH = Profile(
    "nl",
    "dutch",
    "latin",
    """de het een en van in is dat op te zijn met voor niet aan er die als ook door naar uit om bij tot over nog
    maar dan wel geen dus want omdat daarom echter toch ik je jij hij zij ze we wij jullie hun hen hem haar mijn
    jouw ons onze deze dit wat wie waar wanneer hoe waarom welke welk of zo zeer meer minder veel weinig alle
    alles elk elke ieder iedere andere zelf worden wordt werd werden heeft hebben had kan kunnen moet moeten mag
    mogen zal zullen wil willen was waren ben gaat gaan doen doet maken maakt krijgen krijgt geeft staat komt
    twee drie vier vijf zes zeven acht negen tien elf twaalf twintig dertig veertig vijftig zestig honderd
    duizend eerste eerst tweede derde laatste nu daarna vervolgens weer opnieuw altijd nooit niets iets hier
    daar gelijk aantal getal getallen som product berekenen bereken controleer controleren oplossing
    vergelijking opgave vraag antwoord resultaat uur uren wacht goed ja nee misschien juist klopt helft keer
    maal zonder tussen onder boven tegen tijdens volgens zodat voordat nadat terwijl hoeveel nodig deel
    stel even oneven geval gevallen bewijs rest term""",
    "ijk ijke lijk lijke heid heden eren ing ingen oor aat aar ijn elen isch ische",
    "",
)

WESTERN = (ENGLISH, FRENCH, GERMAN, SPANISH, ITALIAN, PORTUGUESE, DUTCH)
