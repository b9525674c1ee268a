"""The words that the comparison of principles knows: opposites, negations, and words of form."""

# Words of one meaning a line, and on the right those of the opposite one. The first is its name;
# a word may stand on several lines.
AXES = """
short brief concise terse succinct | long lengthy wordy verbose rambling
honest truthful sincere candid frank true truth accurate correct | lie lying deceive mislead false
harmless safe safety protect guard shield | harm hurt danger injure damage
harmless | risk risky unsafe hazardous
kind kindness caring gentle humane merciful friendly sympathetic | cruel mean spiteful
kind | heartless nasty hostile harsh brutal
warm warmth | cold icy chilly
polite courteous civil | rude impolite insolent
formal | casual informal colloquial chatty
simple plain everyday | technical fancy complicated complex
fair impartial balanced | unjust biased partial lopsided
praise compliment applaud | criticise criticize fault reproach
cautious careful prudent | bold reckless careless daring
private secret confidential privacy secrecy | public reveal disclose expose publish
show share reveal disclose expose | hide conceal withhold
optimistic hopeful | pessimistic gloomy bleak
certain confident certainty confidence | doubt unsure hesitant tentative doubtful
agree | object oppose contradict
obey comply accept allow permit let |
encourage urge | discourage deter dissuade
serious earnest solemn | playful funny humorous joking silly
maximise maximize | minimise minimize
expand lengthen | shorten condense
specific concrete | general abstract
neutral objective | partisan opinionated subjective
optional voluntary | mandatory compulsory
remember | forget
retain store | delete discard erase
hard difficult | easy effortless
large big | small little tiny
strong | weak
strengthen tighten | weaken loosen
love | hate
modern progressive | traditional conservative
religious | secular
beginner novice layperson | expert specialist
approve endorse favour favor | condemn denounce object oppose
defend support | attack undermine
celebrate | mourn lament
forgive pardon | punish blame
hope | despair
reassure calm soothe | alarm frighten scare panic
unite reconcile | divide separate
attract | repel
save rescue | abandon
invite welcome | exclude repel
volunteer offer | withhold
reward | punish penalise penalize
advise recommend suggest | warn dissuade
brave | timid fearful cowardly
busy | idle lazy
cheap affordable | expensive pricey
clean | dirty filthy
complete whole full | partial incomplete
deep profound | shallow
dull boring | lively vivid exciting
dramatic | sober restrained
enthusiastic eager | reluctant lukewarm
exact precise | rough approximate
familiar | strange foreign
flowery ornate | plain simple
free | paid
frequent often | rare
global worldwide | local
happy cheerful glad | sad unhappy miserable
healthy | sick ill
high | low
innocent | guilty
literal | figurative metaphorical
loyal | disloyal treacherous
male men | female women
maximum | minimum
natural | artificial synthetic
new recent | outdated ancient
passive | active
permanent | temporary
personal | impersonal detached
poetic | prosaic
positive | negative
rational logical | emotional
realistic | idealistic
relax | tense
rural | urban
sensitive tactful | blunt tactless
success succeed | failure fail
tolerant | intolerant bigoted
trivial | important crucial
useful | useless pointless
wise | foolish
win | lose
strict severe stern harsh firm tough rigid | lenient lax indulgent mild gentle soft
strict | forgiving flexible
trust believe faith | suspect mistrust doubt doubtful sceptical skeptical
help assist aid | hinder obstruct thwart
detail thorough exhaustive depth | sketchy superficial
direct straight | evasive evade dodge indirect
calm level peaceful | excited angry agitated furious
clear explicit | vague unclear murky ambiguous
lawful legal law | crime criminal unlawful
early soon first quick fast sooner | late slow later
modest humble | boast arrogant proud
patient | hasty rushed
old elderly aged senior | young youthful
respect dignity esteem | contempt disrespect scorn disdain
equal equality | superior inferior
independent autonomy freedom | pressure coerce force
generous | stingy greedy
loud | quiet silent
rich wealthy | poor needy
increase raise | decrease reduce
child children kid kids minor |
invent fabricate made-up |
insult abuse name-calling |
mock ridicule |
flatter flattery |
jargon |
grieve grief mourn bereave |
doctor physician |
medicine drug medication |
explain explanation |
decide decision choice |
treat treatment |
weigh weight |
thief thieves theft steal |
think opinion view |
"""
# Words that turn around what follows them, or rank it lower.
NEGATIONS = """
not never nor neither without less fewer least lack rarely seldom
avoid refrain refuse decline reject forbid prohibit deny remove omit drop exclude prevent
instead rather above before
"""
# These turn all of their clause around: "deceives nobody" deceives as little as "nobody deceives".
NOBODY = "no nobody none nothing nowhere"
# Both hold for one clause, which ends at a mark of punctuation or at one of these words.
JOINTS = """
and but while because if when whenever unless so then yet although though
"""
# What the texts of all principles are made of, whatever they ask for.
FORM = """
a about after against ai all already also an another answer any anybody anyone anything are as ask
assistant at be been being better between bot both by can chatbot choose contain could did do does
done each else even ever every everybody everyone everything for from get give given gives giving
had has have her here him his how human i in include into is it it's its itself just keep kept last
like made make making may me message might mine model more most much must my named now of off on one
only or other others otherwise our out own people person place please put quite quote reply response
revise rewrite said same say says shall she should somebody someone something stays still such take
taken takes taking text than that the their them themselves there these they thing this those
through to together too toward towards two under until up us use user very was way we well were what
whatever where whether which who whoever whom whose why will with within word would write you your
yours yourself
"""
