"""Flax NNX models.

Shape suffixes used on arrays everywhere in cai_jax: b batch, t time (query position), s cache slot
(key position), d model width, h query heads, k key-value heads, g query heads a key-value head,
n head size, f feed-forward width, v vocabulary.
"""
