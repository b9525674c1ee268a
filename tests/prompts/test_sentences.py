"""Where texts end that were cut off: scripts, lists, code, abbreviations."""

from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cai_jax.prompts.critique_revision import parse_reply
from cai_jax.prompts.sentences import whole_sentences

# Sentences end at the bars; the last one was cut off.
LANGUAGES = {
    "English": "I can't do that.| Ask Dr. Smith, e.g. at 3.30 p.m. today!| He is in the U.S. and",
    "German": "Das geht nicht.| Fragen Sie z. B. Dr. Weiß bzw. Frau Prof. Groß.| Sie hat ca. 3,5",
    "French": "« Non. »| C'est interdit, M. Dupont !| Demandez à Mme. Dur",
    "Spanish": "¡No!| ¿Por qué no llama al Sr. García?| Él vive en la pág. 3 con la Sra. Ló",
    "Italian": "Non posso aiutarla.| Chieda al dott. Rossi.| Il sig. Bian",
    "Polish": "Nie mogę pomóc, np. w tej sprawie.| Proszę zapytać prof. Now",
    "Czech": "S tím nepomohu.| Zeptejte se např. pana",
    "Turkish": "Bunu yapamam.| Lütfen Dr. Yıl",
    "Vietnamese": "Tôi không thể giúp.| Hãy hỏi ng",
    "Russian": "Я не могу помочь.| Спросите, т.е. напишите!| Он живёт на ул. Пуш",
    "Greek": "Τι είναι αυτό;| Δεν μπορώ.| Ρωτήστε κ. Παπ",
    "Armenian": "Ես չեմ կարող։| Հարցրեք բժ",
    "Hebrew": "אני לא יכול לעזור.| תשאל את",
    "Arabic": "هل تريد المساعدة؟| لا أستطيع.| اسأل د. أحم",
    "Urdu": "میں مدد نہیں کر سکتا۔| براہ کرم",
    "Hindi": "मैं मदद नहीं कर सकता।| कृपया डॉ. शर्मा",
    "Bengali": "আমি পারব না।| দয়া করে",
    "Tamil": "என்னால் முடியாது.| தயவுசெய்",
    "Tibetan": "ང་ལ་ཤེས་ཀྱི་མེད།| ཁྱེད་རང",
    "Thai": "ผมช่วยไม่ได้ครับ |กรุณาถามแพท",
    "Lao": "ຂ້ອຍຊ່ວຍບໍ່ໄດ້ |ກະລຸນາຖາ",
    "Khmer": "ខ្ញុំមិនអាចជួយបានទេ។| សូមសួរ",
    "Burmese": "ကျွန်တော် မကူညီနိုင်ပါ။| ကျေးဇူးပြု၍၊ ဆရာ",
    "Amharic": "መርዳት አልችልም።| ለምን፧| እባክዎ",
    "Mongolian": "ᠪᠢ ᠴᠢᠳᠠᠬᠤ ᠦᠭᠡᠢ᠃| ᠲᠠ",
    "Chinese": "我不能帮你。|为什么？|他说：“不行。”|价格是3.5元，请",
    "Japanese": "「できません。」|それは危険です！|医師に相談",
    "Korean": "도와드릴 수 없습니다.| 의사에게 물",
}
FORMS = {
    "numbers of a list": "Do this:\n1. Wash.|\n|2. Dry them\n|3. Put th",
    "a number alone": "1. Wash.|\n|2.",
    "bullets": "- one thing\n|* another\n|• a third th",
    "an item that goes on": "It is so.| Take:\n- flour:\n",
    "a table": "| a | b |\n¦| 1 | 2 |\n¦| 3 | 4".replace("|", "∣").replace("¦", "|"),
    "a decimal": "It costs 3.50.| That is 2.",
    "the number of something": "Look there.| It is No. 5 of",
    "an address": "See https://a.org/b.html.| Or www.a.org/b",
    "an initial": "J. R. R. Tolkien wrote it.| So did C. S.",
    "an ellipsis": "Wait... what?| I… don't",
    "a name with a mark": "Yahoo! is a firm.| Yahoo! is",
    "quotes": 'He said "no."| And (then',
    "brackets and marks": "**Note.**| (Really.)[1]| And",
    "emoji": "Of course! 😊👍🏽| Let me",
    "code": "Here:\n```py\nx = a. b\n```|\nThen ru",
    "a block inside another": "````\n```\nx.\n```\n````|\nand",
    "code that is cut off": "Run this.|\n\n```sh\nls. \n# Wait. For",
    "no capitals": "i can help.| let me see.| first",
}
# A last point that is an abbreviation's: the sentence goes on.
ABBREVIATIONS = {
    "Afrikaans": "Nee.| Vra mnr. Botha",
    "Albanian": "Jo.| Pyet p.sh. Agimin",
    "Arabic": "لا أستطيع.| اسأل أ.د. أحمد",
    "Armenian": "|Հարցրեք դոկ. Սարգսյանին",
    "Armenian, another": "Ոչ։| Ծն. Երևանում",
    "Basque": "Ez.| Ikus adib. Bilbo",
    "Bengali": "না।| জিজ্ঞাসা করুন ডা. রহমান",
    "Bulgarian": "Не мога.| Живее на бул. Витоша",
    "Croatian": "Ne mogu.| Pitajte npr. Marka",
    "Czech": "Nemohu.| Napište např. Janu Nov",
    "Danish": "Nej.| Spørg f.eks. Lars",
    "Dutch": "Nee.| Vraag het dhr. Jansen of mevr. De",
    "English capitals": "|Ask DR. SMITH",
    "English initials": "He wrote it.| It was J. R. R. Tol",
    "English degrees": "|She spoke with Prof. Ann",
    "Esperanto": "Ne.| Demandu s-ron, ekz. S-ro. Zam",
    "Estonian": "Ei.| Küsige nt. Tallinnas",
    "Finnish": "En voi.| Kysy esim. Helsing",
    "French": "Non.| Une ville, p. ex. Paris",
    "French article": "Non.| Selon l'art. 5 du code",
    "Georgian": "არა.| ჰკითხეთ დოქ. ბერიძეს",
    "German article": "Nein.| Siehe Art. 5 und Abs. 2 des",
    "German millions": "Nein.| Es kostet 3 Mio. Euro",
    "German day": "Nein.| Er kommt am 3. Mai",
    "Greek": "Όχι.| Ρωτήστε π.χ. τον Γιάν",
    "Gujarati": "ના.| પૂછો ડૉ. પટેલ",
    "Hebrew": "לא.| שאל את ד. כהן",
    "Hindi": "नहीं।| दूरी 5 कि.मी. दिल्ली",
    "Hungarian": "Nem.| Kérdezze pl. Kovács",
    "Icelandic": "Nei.| Spyrðu t.d. Jón",
    "Indonesian": "Tidak.| Ia tinggal di Jl. Sudir",
    "Irish": "Níl.| Cuir ceist, m.sh. Ar",
    "Italian": "Non posso.| Ad es. Mario",
    "Italian, a title": "|Chieda al Dott. Rossi",
    "Kannada": "ಇಲ್ಲ.| ಕೇಳಿ ಡಾ. ರಾವ್",
    "Lao": "ຂ້ອຍຊ່ວຍບໍ່ໄດ້ |ກະລຸນາຖາມ ດຣ. ສົມ",
    "Latvian": "Nē.| Jautājiet piem. Rīgā",
    "Lithuanian": "Ne.| Klauskite pvz. Vilniuje",
    "Malayalam": "ഇല്ല.| ചോദിക്കൂ ഡോ. നായർ",
    "Marathi": "नाही.| विचारा श्री. पाटील",
    "Persian": "نه.| بپرس از د. احمد",
    "Polish": "Nie.| Mieszka na ul. Pięknej",
    "Portuguese": "Não.| Pergunte à Dra. Ana",
    "Romanian": "Nu pot.| Întrebați pe dl. Popescu",
    "Russian": "Нет.| Метро им. Ленина",
    "Russian, a street": "|Он живёт на ул. Пушкина",
    "Serbian": "Не могу.| Питајте нпр. Марка",
    "Spanish": "No.| Vive en EE. UU. Con",
    "Spanish article": "No.| Según el art. 5 de",
    "Swahili": "Hapana.| Muulize Bw. Juma",
    "Swedish": "Nej.| Fråga t.ex. Lars",
    "Tamil": "இல்லை.| கேளுங்கள் திரு. குமார்",
    "Telugu": "లేదు.| అడగండి డా. రావు",
    "Thai": "ผมช่วยไม่ได้ครับ |กรุณาถาม ดร. สมชาย",
    "Thai, a year": "ผมช่วยไม่ได้ครับ |เกิดเมื่อ พ.ศ. 2500",
    "Turkish": "Hayır.| Örn. Ankara",
    "Turkish, a title": "|Lütfen Sn. Yıl",
    "Ukrainian": "Ні.| Він живе на вул. Шевченка",
    "Vietnamese": "Không.| Hãy hỏi TS. Nguyễn hoặc BS. Trần ở TP. Hồ",
}
# Ends that look like no end, or like an abbreviation's.
ENDS = {
    "Bengali": "আমি পারব না।|আপনি",
    "Chinese question": "你好吗?|请",
    "Chinese exclamation": "不行!|我不",
    "Chinese ellipsis": "我不能……|请",
    "Chinese point": "我不能.|请",
    "Chinese quotation": "他说“不行!”|然后",
    "Croatian": "Mačka ima dug krk.| Ona",
    "Czech": "To je krk.| Ona",
    "Czech flood": "Nech mě být.| Přišla smrt.| Pak",
    "English age": "He is 12.| She",
    "English plan": "Use plan B.| Then",
    "English weight": "It weighs 5 kg.| Then",
    "English file": "Open the pdf.| Then",
    "English time": "Come at 5 p.m.| Then",
    "English country": "He lives in the U.S.| He",
    "English and so on": "Bring pens, etc.| Then",
    "English brand": "I can help.| iPhone users",
    "English system": "No.| macOS is",
    "English art": "She teaches art.| Then",
    "English small number": "It is so.| 12 people",
    "English large number": "It was in 1990.| He",
    "English bracket": "I can help.| (But",
    "English quotation": "I can help.| “But",
    "English quoted end": "He said “No.”| Then",
    "English emoji": "I can help. 😊| But",
    "English note": "It is so.¹| But",
    "English link": "See [this](https://a.org).| Then",
    "English bold": "**It is so.**| But",
    "English paragraph": "Yes.| Use plan B.\n|\nThen",
    "English TV": "I can.| I watch TV.| Then",
    "English interrobang": "Really?!| Then",
    "French": "« Oui ? »| Alors",
    "German": "Wirklich?| Ä",
    "Greek": "Μπορείς;| Ναι",
    "Hindi": "मैं मदद नहीं कर सकता.| आप",
    "Hindi is": "यह गलत है.| आप",
    "Italian mine": "È mio.| Non",
    "Japanese": "だめ!|医師に",
    "Japanese long vowel": "だめだー!|医師に",
    "Japanese quotation": "「だめ!」|医師に",
    "Korean": "안 됩니다.| 10명이",
    "Persian": "نمی‌توانم؟| بله",
    "Portuguese": "Não posso!| 2 pessoas",
    "Russian them": "Помоги им.| Они",
    "Serbian": "To je smrt.| Ona",
    "Spanish": "¡No!| ¿Por",
    "Swedish himself": "Han skäms för sig.| Hon",
    "Swedish she": "Det är hon.| Han",
    "Tamil": "என்னால் முடியாது.| 5 பேர்",
    "Turkish you": "Suçlu sen.| Ben",
    "Urdu": "نہیں۔|میں",
    "Vietnamese": "Tôi không thể.| “Hãy",
    "Welsh": "Mae yn y gwm.| Mae",
}
LISTS = {
    "middle dots": "・手を洗う\n|・乾か",
    "circles": "● Wash\n|○ Dry\n|● Put th",
    "interpuncts": "· Wash\n|· Put th",
    "triangles": "‣ Wash\n|‣ Put th",
    "ticks": "✅ Wash\n|✅ Put th",
    "arrows": "→ Wash\n|→ Put th",
    "boxes": "☐ Wash\n|☑️ Put th",
    "keycaps": "1️⃣ Wash\n|2️⃣ Put th",
    "sections": "1.1 Wash\n|1.2 Put th",
    "colons": "1: Wash\n|2: Put th",
    "steps": "Step 1: Wash\n|Step 2: Put th",
    "Chinese ordinals": "第一，洗手\n|第二，擦",
    "Chinese numbers": "一、洗手\n|二、擦",
    "Chinese steps": "第1步：洗手\n|第2步：擦",
    "bold": "**1. Wash**\n|**2. Put th",
    "levels": "- Wash\n|  - Hands\n|  - Fa",
    "an item of two lines": "|- You should never\n  do that",
    "an item of two lines after another": "- Wash\n|- You should never\n  do th",
    "a sentence in an item of two lines": "- Wash.| You should never\n  do th",
    "a line after an item": "- Wash\n|That is",
    "a heading of an item": "1. **Wash**\n|   Use so",
}
CASES = LANGUAGES | FORMS


def sentences(name):
    return [part.replace("∣", "|") for part in CASES[name].split("|")]


@pytest.mark.parametrize("name", CASES)
def test_a_cut_text_ends_with_its_last_whole_sentence(name):
    *whole, cut = sentences(name)
    whole = "".join(whole)
    assert whole_sentences(whole + cut) == whole
    assert parse_reply(whole + cut, False) == whole.strip()


@pytest.mark.parametrize("text", [*ABBREVIATIONS.values()], ids=ABBREVIATIONS)
def test_no_text_is_cut_after_an_abbreviation(text):
    whole, cut = text.split("|")
    assert whole_sentences(whole + cut) == whole


@pytest.mark.parametrize("text", [*ENDS.values(), *LISTS.values()], ids=[*ENDS, *LISTS])
def test_no_whole_sentence_or_item_is_lost(text):
    *whole, cut = text.split("|")
    assert whole_sentences("".join(whole) + cut) == "".join(whole)


def test_a_doubtful_end_is_taken_only_where_there_is_no_other():
    assert whole_sentences("It weighs 5 kg. Then") == "It weighs 5 kg."
    assert whole_sentences("Take it. It weighs 5 kg. Then") == "Take it."
    assert whole_sentences("Ask Dr. Smith") == ""


@pytest.mark.parametrize("name", CASES)
def test_a_finished_text_is_kept_whole(name):
    *whole, cut = sentences(name)
    for text in ("".join(whole), "".join([*whole, cut])):
        assert parse_reply(text, True) == text.strip()


@pytest.mark.parametrize("name", LANGUAGES)
def test_wherever_a_text_is_cut_no_part_of_a_sentence_is_kept(name):
    parts, closers = sentences(name), " ”」»"
    text = "".join(parts)
    ends = {"".join(parts[:n]).rstrip(closers) for n in range(len(parts))}
    kept = {whole_sentences(text[:n]).rstrip(closers) for n in range(len(text))}
    assert kept == ends


@pytest.mark.parametrize("piece", ["😊", "😊 ", "»", ". ", "...", "'\"", "```\n", "- a: ", "\n"])
def test_rows_of_anything_take_no_time(piece):
    started = perf_counter()
    assert whole_sentences(f"Yes. Oh.{piece * 2000}x").startswith("Yes.")
    assert perf_counter() - started < 5  # backtracking would take minutes


PIECES = st.sampled_from(
    [
        *"ab1Z \n.!?…;。！？།؟։་กข\"'”)*-•`😊",
        *(
            "Dr.",
            "U.S.",
            "3.5",
            "etc.",
            "你?",
            "…",
            "● ",
            "1: ",
            "\n  ",
            "iP",
            "\n- ",
            "\n2. ",
            "\n```\n",
            "κ;",
            "Yes. ",
        ),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@given(TEXTS)
@example("- one\n")
@example("กข ก")
def test_what_is_kept_is_a_prefix_and_is_whole(text):
    whole = whole_sentences(text)
    assert text.startswith(whole)
    assert whole_sentences(whole) == whole
    parsed = parse_reply(text, False)
    assert parsed is None or parse_reply(parsed, True) == parsed


@given(TEXTS, st.text("ab \n.!。"))
def test_sentences_that_follow_take_nothing_away(text, more):
    """Unless they open or close a block of code."""
    assert (
        len(whole_sentences(f"{text}\nOh.\n{more}")) >= len(whole_sentences(text)) or "```" in text
    )
