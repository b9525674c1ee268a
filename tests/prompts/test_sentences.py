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
CASES = LANGUAGES | FORMS


def sentences(name):
    return [part.replace("∣", "|") for part in CASES[name].split("|")]


@pytest.mark.parametrize("name", CASES)
def test_a_cut_text_ends_with_its_last_whole_sentence(name):
    *whole, cut = sentences(name)
    whole = "".join(whole)
    assert whole_sentences(whole + cut) == whole
    assert parse_reply(whole + cut, False) == whole.strip()


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
        *("Dr.", "U.S.", "3.5", "\n- ", "\n2. ", "\n```\n", "κ;", "Yes. "),
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
