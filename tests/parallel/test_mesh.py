"""Sizes of meshes."""

import pytest

from cai_jax.parallel.mesh import make_mesh


def test_mesh_sizes_are_checked():
    assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(data=3, fsdp=1, tensor=1)
    with pytest.raises(ValueError, match="only one axis"):
        make_mesh(data=-1, fsdp=-1)
