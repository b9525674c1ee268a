"""Flax NNX models.

Shape suffixes used on arrays everywhere in cai_jax: b batch, t time (query position), s cache slot
(key position), d model width, h query heads, k key-value heads, g query heads per key-value head,
n head size (of what is sampled, new tokens), r rotated pairs of a head, f feed-forward width, v
vocabulary, i and o the input and output widths of a projection.
"""
