"""Abbreviations that end in a point, in lower case; "z. B." is "z.b".

A reply's language is not known, so all are looked up at once. What is short and has no vowel is
taken for an abbreviation anyway; it stands here if its sentence surely goes on.
"""

# Titles, streets, "for example". Sentences go on after them, and few of any language end so.
_NEVER_LAST = {
    "Afrikaans": "mnr mev",
    "Albanian": "p.sh",
    "Arabic": "أ.د",
    "Armenian": "դոկ պրոֆ",
    "Basque": "adib",
    "Bengali": "ড ডা মো প্রফ",
    "Bulgarian": "бул д-р инж т.нар",
    "Croatian, Serbian, Slovenian": "gđa npr нпр тзв",
    "Czech, Slovak": "čl judr mj mudr např napr phdr sv tj tzn tzv",
    "Dutch": "bijv dhr drs excl incl mevr mw resp zgn",
    "English": "approx atty capt cf dept dr e.g esp gov i.e lt messrs mr mrs ms pres prof rev sgt "
    "univ viz vs",
    "Esperanto": "ekz s-ro",
    "Estonian, Finnish": "esim",
    "Filipino": "gng",
    "French": "c.-à-d mgr mlle mme mmes p.ex",
    "Georgian": "დოქ ე.ი მაგ პროფ",
    "German": "abb bzw d.h evtl exkl frl ggf hl hrsg i.d.r inkl nr sog vgl z.b",
    "Greek": "αγ βλ δηλ δρ λεωφ π.χ σελ",
    "Gujarati": "ડૉ દા.ત પ્રો શ્રી",
    "Hindi, Marathi, Nepali": "उदा कु डा डॉ पं प्रो श्री श्रीमती सुश्री सौ स्व",
    "Hungarian": "ifj özv pl",
    "Icelandic": "t.d þ.e",
    "Indonesian, Malay": "bpk hj hlm jl yth",
    "Irish": "m.sh",
    "Italian": "ad.es avv dott dott.ssa geom p.es pag sig.ra sigg",
    "Kannada": "ಉದಾ ಡಾ ಪ್ರೊ ಶ್ರೀ",
    "Lao": "ດຣ",
    "Latvian, Lithuanian": "piem pvz t.y",
    "Malayalam": "ഉദാ ഡോ പ്രൊ ശ്രീ",
    "Polish": "inż m.in np św tzw ul",
    "Punjabi": "ਡਾ ਪ੍ਰੋ ਸ੍ਰੀ",
    "Romanian": "d-l d-na dna",
    "Russian, Ukrainian": "акад вул див доц напр просп проф св стр т.е т.зв т.к т.н ул",
    "Spanish, Portuguese": "avda dña dra ee exma exmo gral lic p.ej pág profa sr sra srta",
    "Swahili": "bw",
    "Swedish, Danish": "dvs f.eks fx kl s.k t.ex",
    "Tamil": "எ.கா டாக் திரு திருமதி",
    "Telugu": "ఉదా డా ప్రొ శ్రీ",
    "Thai": "ดร ทพ นพ น.ส ผศ พญ รศ",
    "Turkish": "bkz doç örn sn yrd",
    "Vietnamese": "bs gs pgs ths tp ts",
}

# They also end sentences, as "etc." does, or are words: a German article is an English "art".
_SOMETIMES_LAST = {
    "Armenian": "տիկ",
    "Czech, Slovak, Polish": "al apod atd atp doc godz itd itp",
    "Dutch": "enz evt ir",
    "English": "apr aug ave bldg blvd bros co col corp dec est etc feb fig figs gen hon inc jan "
    "maj nov oct rep sec sen sept vol",
    "Finnish": "jne os osv puh utt",
    "French": "av boul chap éd env etab ex mm",
    "German": "abs anm art geb ing kap max min mio tel usw",
    "Greek": "αρ κα τηλ",
    "Hungarian, Norwegian": "ev stb",
    "Indonesian": "ny",
    "Italian": "ecc sig",
    "Portuguese": "eng exa",
    "Russian, Ukrainian, Belarusian": "им ім ітд мин обл праф рис руб тел тис тыс чел",
    "Slovenian": "ga",
    "Spanish": "ca ej num núm ud uds uu",
    "Turkish": "cad mah sok",
}

NEVER_LAST = frozenset(" ".join(_NEVER_LAST.values()).split())
SOMETIMES_LAST = frozenset(" ".join(_SOMETIMES_LAST.values()).split())
