import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd_dist.nested_state import flatten, unflatten

DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool


def through_json(state):
    plain, tensors = flatten(state)
    return unflatten(json.loads(json.dumps(plain, allow_nan=False)), tensors)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(a, b):
    """Equal, of the same types, in the same order; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        layouts = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        return layouts and torch.equal(bits(a), bits(b))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        keys = list(zip(a, b, strict=False))
        return len(a) == len(b) and all(
            type(k) is type(other) and k == other and same(a[k], b[other]) for k, other in keys
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    content = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(len(shape)))
    return content.to(draw(st.sampled_from(DTYPES)))


keys = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(["$tensor", "$items", "$", "a.b", "__metadata__"]),
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**64, 2**130), st.floats(), st.text(),
    tensors(),
)  # fmt: skip
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(states)
def test_every_nested_state_comes_back(state):
    assert same(through_json(state), state)


def test_an_optimizer_s_state_by_hand():
    momentum = torch.tensor([1.0, 2.0])
    plain, tensors = flatten({"state": {0: {"momentum": momentum}}, "betas": (0.9, math.inf)})
    assert plain == {
        "state": {"$items": [[0, {"momentum": {"$tensor": "state.state.0.momentum"}}]]},
        "betas": {"$tuple": [0.9, {"$float": "inf"}]},
    }
    assert tensors.keys() == {"state.state.0.momentum"}


def test_names_that_would_be_the_same_are_told_apart():
    state = {
        "a.b": torch.tensor(1),
        "a": {"b": torch.tensor(2)},
        0: torch.tensor(3),
        "0": [torch.tensor(4)],
    }
    assert len(flatten(state)[1]) == 4
    assert same(through_json(state), state)


def test_parts_of_one_tensor_are_held_apart():
    whole = torch.arange(6.0)
    _, tensors = flatten([whole, whole[2:4], whole])
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert len(memory) == 3


def test_the_layout_of_a_convolution_s_state_comes_back():
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    back = through_json(weight)
    assert torch.equal(back, weight)
    assert back.stride() == weight.stride() != back.contiguous().stride()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"optimizer": {"hook": print}}, "state.optimizer.hook is a builtin_function_or_method"),
        ([b"bytes"], "state.0 is a bytes"),
        ({(1, 2): 3}, r"state has the key \(1, 2\)"),
        ({math.nan: 3}, "state has the key nan"),
    ],
)
def test_what_no_checkpoint_can_hold_is_named(state, words):
    with pytest.raises(TypeError, match=words):
        flatten(state)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"$tensor": "b"}, "there is no tensor 'b'"),
        ({"$tensor": 3}, r"\$tensor can't hold 3"),
        ({"$tensor": "a", "more": 1}, r"\$tensor can't hold 'a'"),
        ({"$channels_last": "a"}, r"\$channels_last can't hold 'a'"),
        ({"$float": "3"}, r"\$float can't hold '3'"),
        ({"$items": [[[], 1]]}, "is not a key and its value"),
        ({"$items": [[1]]}, "is not a key and its value"),
        ({"$call": "os.system"}, r"\$call can't hold"),
    ],
)
def test_what_flatten_does_not_make_is_refused(plain, words):
    with pytest.raises(ValueError, match=words):
        unflatten(plain, {"a": torch.zeros(2)})
