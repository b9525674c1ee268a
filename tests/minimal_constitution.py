"""The smallest constitution file that loads."""

MINIMAL = """\
name: tiny
version: "1"
description: For tests.
authors: [us]
critique_revision:
  - id: kind
    author: us
    tags: [tone]
    critique_request: What is unkind here?
    revision_request: Make it kind.
feedback:
  - id: kinder
    author: us
    tags: [tone]
    question: Which is kinder?
    principle: You are kind.
    opposite: You are unkind.
few_shots:
  multiple_choice:
    - {id: one, prompt: p, question: q, option_a: a, option_b: b, answer: A}
"""
