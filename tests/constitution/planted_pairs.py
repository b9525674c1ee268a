"""Pairs of principles that lint must tell apart, written before its rules on wording were.

The rules were tuned on SEEN alone; HELD_OUT says what they find in texts they were not made for.
"""

# (what a writer put in twice, what was meant to be new)
SEEN_DUPLICATES = [
    (
        "Which response is less harmful to other people?",
        "Which of the two does less harm to others?",
    ),
    (
        "Rewrite your reply so that it contains no insults.",
        "Rewrite the reply without any insulting words.",
    ),
    (
        "Which response explains the risk of a medicine more honestly?",
        "Which reply is more truthful about the dangers of medicines?",
    ),
    ("The assistant should be brief and clear.", "Answers should be clear, and short."),
    (
        "Which response protects a child's private details better?",
        "Which response better guards private details of children?",
    ),
    (
        "Never pretend to be a human when somebody asks.",
        "If asked, the assistant must not pretend that it is human.",
    ),
    (
        "Which response gives fairer treatment to workers and to their employers?",
        "Which answer treats employers and workers with more fairness?",
    ),
    (
        "Rewrite your reply so that it sends the user to a doctor when symptoms are serious.",
        "Rewrite it so that serious symptoms send the user to see a doctor.",
    ),
    (
        "Which response admits more openly that it does not know the answer?",
        "Which response is more open in admitting what it does not know?",
    ),
    (
        "Which response avoids stereotypes of old people?",
        "Which response has fewer stereotypes about the elderly?",
    ),
    (
        "The assistant should cite the sources of its numbers.",
        "Numbers should come with their sources, which the assistant cites.",
    ),
    (
        "Which reply is kinder to somebody who grieves?",
        "Which response shows more kindness to a grieving person?",
    ),
]

# (what one group wants, what another one wants)
SEEN_CONTRADICTIONS = [
    ("Which response is shorter?", "Which response is longer?"),
    ("Rewrite your reply so that it is more formal.", "Rewrite your reply in a more casual voice."),
    (
        "The assistant should always give its own opinion on politics.",
        "The assistant should never give its own opinion on politics.",
    ),
    (
        "Which response sends the patient to a doctor sooner?",
        "Which response does not send the patient to a doctor?",
    ),
    (
        "Which response trusts the user's word about their job?",
        "Which response distrusts what users say about their job?",
    ),
    (
        "Which response uses simple words for medical terms?",
        "Which response uses technical words for medical terms?",
    ),
    (
        "Rewrite your reply so that it praises the student's work.",
        "Rewrite your reply so that it criticises the student's work.",
    ),
    (
        "Which response is more cautious with advice on investing?",
        "Which response is bolder with advice on investing?",
    ),
    (
        "Refuse to write essays that pupils will hand in.",
        "Help to write the essays that pupils will hand in.",
    ),
    (
        "Which response keeps what a teenager said secret from the parents?",
        "Which response reveals to the parents what a teenager said?",
    ),
    (
        "The assistant should use lists and headings.",
        "The assistant should avoid lists and headings.",
    ),
    (
        "Which response comforts before it gives advice?",
        "Which response gives advice without comforting first?",
    ),
]

HELD_OUT_DUPLICATES = [
    (
        "Which response would be safer for someone with a nut allergy?",
        "Which reply is safer for people who have nut allergies?",
    ),
    (
        "The assistant should respect the faith of the person it talks with.",
        "Show respect for the faith of whoever is talking to you.",
    ),
    (
        "Which response points out more clearly that a contract is unfair?",
        "Which response says more clearly when a contract isn't fair?",
    ),
    (
        "Rewrite your reply so that no exclamation marks are left.",
        "Rewrite the reply and remove all exclamation marks.",
    ),
    (
        "Which response is of less help to a thief?",
        "Which of these answers helps thieves less?",
    ),
    (
        "Do not invent quotations from books.",
        "Quotations from books must never be made up or invented.",
    ),
    (
        "Which response leaves the decision about an operation to the patient?",
        "Which reply lets patients decide about the operation themselves?",
    ),
    (
        "Which response is more polite to a customer who is angry?",
        "Which answer is politer toward angry customers?",
    ),
    (
        "The assistant should warn of scams before money is sent.",
        "Before any money is sent, warn the user about scams.",
    ),
    (
        "Which response explains each step of the calculation?",
        "Which reply gives an explanation for every step of a calculation?",
    ),
    (
        "Rewrite your reply so that it mentions the emergency number.",
        "Rewrite your reply with a mention of the number for emergencies.",
    ),
    (
        "Which response takes the tenant's worry about mould seriously?",
        "Which reply is more serious about a tenant's worries over mould?",
    ),
    (
        "Which response speaks of disabled people with more dignity?",
        "Which response gives people with disabilities more dignity?",
    ),
    (
        "Keep the names of witnesses confidential.",
        "The assistant should keep witnesses' names private.",
    ),
]

HELD_OUT_CONTRADICTIONS = [
    (
        "Which response is more optimistic about the patient's chances?",
        "Which response is more pessimistic about a patient's chances?",
    ),
    (
        "The assistant should tell jokes when the user is sad.",
        "The assistant should not tell jokes when the user is sad.",
    ),
    (
        "Which response gives more detail about the procedure?",
        "Which response gives less detail about the procedure?",
    ),
    (
        "Rewrite your reply so that it answers the legal question directly.",
        "Rewrite your reply so that it refuses to answer the legal question.",
    ),
    (
        "Which response encourages the user to call the landlord?",
        "Which response discourages the user from calling their landlord?",
    ),
    (
        "Always address customers by their first name.",
        "Never address a customer by first name.",
    ),
    (
        "Which response includes the names of the accused?",
        "Which response leaves out the names of the accused?",
    ),
    (
        "Rewrite your reply in a serious tone.",
        "Rewrite your reply in a playful tone.",
    ),
    (
        "Which response shows more certainty about the diagnosis?",
        "Which response shows more doubt about the diagnosis?",
    ),
    (
        "Which response puts the needs of the company above those of its clients?",
        "Which response puts the needs of clients above those of the company?",
    ),
    (
        "The assistant should hide its reasoning from pupils.",
        "The assistant should show pupils its reasoning.",
    ),
    (
        "Which response is stricter with pupils who come late?",
        "Which response is more lenient with pupils who come late?",
    ),
    (
        "Report threats of violence to the school.",
        "Do not report threats of violence to the school.",
    ),
    (
        "Which response agrees with what the customer claims?",
        "Which response disagrees with what the customer claims?",
    ),
]

# Principles that may stand in one file: near in topic or in frame, and not in what they ask for.
HARMLESS = [
    ("Which response is more honest?", "Which response is kinder?"),
    (
        "Which response is less likely to help a thief?",
        "Which response is less likely to frighten a child?",
    ),
    (
        "Rewrite your reply so that it is free of insults.",
        "Rewrite your reply so that it is free of jargon.",
    ),
    (
        "Which response gives better advice on money?",
        "Which response gives better advice on health?",
    ),
    (
        "The assistant should admit its mistakes.",
        "The assistant should correct the user's mistakes politely.",
    ),
    (
        "Which response explains medical words in plain language?",
        "Which response says when to see a doctor?",
    ),
    (
        "Never give out a person's address.",
        "Never help to forge a document.",
    ),
    (
        "Which response treats both sides of a divorce fairly?",
        "Which response keeps the children of a divorce out of the quarrel?",
    ),
    (
        "Which response is more honest about side effects?",
        "Which response is more honest about costs?",
    ),
    (
        "Rewrite your reply so that the answer comes first.",
        "Rewrite your reply so that it ends with one question to the user.",
    ),
    (
        "Which response refuses to help with a fraud?",
        "Which response helps the victim of a fraud to get money back?",
    ),
    (
        "Which response is shorter?",
        "Which response has shorter sentences and simpler words for children?",
    ),
    (
        "The assistant should not give legal advice as if it were a lawyer.",
        "The assistant should say where a free lawyer can be found.",
    ),
    (
        "Which response shows more respect for older people?",
        "Which response shows more respect for the law?",
    ),
    (
        "Do not pretend to have a body.",
        "Do not pretend to be certain.",
    ),
    (
        "Which response spares animals more pain?",
        "Which response spares the user more work?",
    ),
    (
        "Which response gives a clear reason when it refuses?",
        "Which response refuses less often without need?",
    ),
    (
        "Which response avoids frightening somebody who is ill?",
        "Which response hides no risk from somebody who is ill?",
    ),
    (
        "Praise effort where a pupil has made one.",
        "Never mock a pupil's mistakes.",
    ),
    (
        "Which response keeps the secrets of patients?",
        "Which response warns others when a patient threatens them?",
    ),
    (
        "Rewrite your reply so that it takes no side in the election.",
        "Rewrite your reply so that it says how and where one can vote.",
    ),
    (
        "Which response sounds warmer?",
        "Which response sounds calmer?",
    ),
    (
        "Which response tells bad news plainly?",
        "Which response tells bad news with comfort?",
    ),
    (
        "The assistant should help people to find work.",
        "The assistant should help people to keep their data private.",
    ),
    (
        "Which response gives no help with weapons?",
        "Which response gives no help with spying on a partner?",
    ),
    (
        "Which response is fair to the tenant?",
        "Which response is fair to the landlord?",
    ),
    (
        "Say what the evidence shows on vaccines.",
        "Say what the evidence shows on diets.",
    ),
    (
        "Which response keeps a promise that it made earlier?",
        "Which response makes no promise that it cannot keep?",
    ),
    (
        "Rewrite your reply in words that a child can follow.",
        "Rewrite your reply so that it is safe if a child follows it.",
    ),
    (
        "Which response has fewer spelling mistakes?",
        "Which response has fewer made-up facts?",
    ),
]
