"""A small synthetic world in which harm, help and evasion are decidable.

It is a control, not evidence about large models: a grammar of requests and replies, an oracle that
reads them, and a corpus to pretrain a tiny assistant on that is helpful and has no taste for
harmlessness. What Constitutional AI does to that assistant can be measured against the oracle.
"""
