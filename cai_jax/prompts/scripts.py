"""Scripts by how they write words."""

# Without spaces between words; for a class of ``regex``.
UNSPACED = r"\p{Han}\p{Hira}\p{Kana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
