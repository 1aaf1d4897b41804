"""Recognises what the operator computes: a candidate operation by what it does to its input, whoever wrote it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastnas.ops import CANDIDATES, PREPROCESS, Depthwise
from fastnas.ops.candidates import Pointwise, Reduce, Stage
from fastnas.swap.recipes import Recipe, RefusedError, brief, hook_stores
from fastnas.swap.trace import Operation, Trace, trace, training

_aten = torch.ops.aten
_POOLS = {_aten.max_pool2d_with_indices.default: "max_pool_3x3", _aten.avg_pool2d.default: "avg_pool_3x3"}
_ANY_CHANNELS = 6  # of a probe for a module without weights: even, for the sake of halves
_PROBE = (8, 8)


def recognise(module: nn.Module) -> Recipe:
    """How the operator computes `module`, from runs of it on random values, in training and in eval mode.

    Raises:
        RefusedError: it does not, or it does not compute this.
    """
    _check_untouched(module)
    with training(module, True):
        recipe = _recognise(module)
    with training(module, False):
        other = _recognise(module)
    if other.signature != recipe.signature:
        raise RefusedError(f"in training it is a {recipe.name}, in eval mode a {other.name}")
    return recipe


def _recognise(module: nn.Module) -> Recipe:
    x = torch.randn(2, _in_channels(module), *_PROBE, **_like(module))
    try:
        found, result = trace(module, x)
    except Exception as error:  # whatever other people's code raises
        raise RefusedError(f"it cannot be run on a tensor of shape {tuple(x.shape)}: {brief(error)}") from error
    if not isinstance(result, Tensor):
        raise RefusedError(f"it returns a {type(result).__name__}, not a tensor")
    return _Matcher(module, found, x).match(result)


def _check_untouched(module: nn.Module) -> None:
    for m in module.modules():
        if any(hook_stores(m)):
            raise RefusedError("it has hooks, or a module inside it has")
        if "parametrizations" in m._modules:
            raise RefusedError("a weight inside it is parametrised")
        if isinstance(m, nn.SyncBatchNorm):
            raise RefusedError("its SyncBatchNorm takes statistics over all processes, the operator over its own batch")


def _widths(conv: nn.Conv2d) -> tuple[int, int]:
    """Channels of its input and output; code that widens networks may leave the attributes as they were."""
    return conv.weight.shape[1] * conv.groups, conv.weight.shape[0]


def _in_channels(module: nn.Module) -> int:
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            return _widths(m)[0]
        if isinstance(m, nn.BatchNorm2d):
            return m.num_features
    return _ANY_CHANNELS


def _like(module: nn.Module) -> dict[str, Any]:
    weight = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), None)
    return {} if weight is None else {"dtype": weight.dtype, "device": weight.device}


class _Matcher:
    """Reads a trace from its end to its beginning."""

    def __init__(self, module: nn.Module, found: Trace, x: Tensor) -> None:
        self._module, self._found, self._x = module, found, x
        self._matched: list[Operation] = []
        self._leaves: list[nn.Module] = []  # last first, as they are met

    def match(self, result: Tensor) -> Recipe:
        if self._found.idle:
            kind = type(self._found.idle[0]).__name__
            raise RefusedError(f"it holds a {kind} that does nothing now, but may when its attributes change")
        if id(self._x) in self._found.rectified:
            raise RefusedError("its ReLU works in place on the edge's input, which other candidates read")
        if result is self._x:
            return self._recipe("skip_connect", 1)
        if self._is_zero(result):
            return self._recipe("none", self._x.shape[2] // result.shape[2])
        last = self._found.producer(result)
        if last is not None and last.function in _POOLS:
            return self._pool(last)
        norm = self._leaf(result, nn.BatchNorm2d, "it does not end in a batch norm")
        assert isinstance(norm.function, nn.BatchNorm2d)
        self._check_norm(norm.function)
        u = norm.arguments[0]
        source = self._operation(u)
        if source.function in _POOLS:
            return self._pool(source)
        stages, stride = self._stages(u)
        known = {kind.stages: name for name, kind in (PREPROCESS | CANDIDATES).items() if kind.stages}
        if stages not in known:
            raise RefusedError(f"the operator has no candidate of {' and '.join(map(_described, stages))}")
        return self._recipe(known[stages], stride)

    def _recipe(self, name: str, stride: int) -> Recipe:
        others = [op for op in self._found.operations if op not in self._matched and op.function not in _HARMLESS]
        if others and name != "none":
            raise RefusedError(f"it also computes {_name(others[0].function)}")
        leaves = self._leaves[::-1]
        if len(set(map(id, leaves))) < len(leaves):
            raise RefusedError("it uses a convolution or a batch norm twice")
        shapes = [leaf for leaf in leaves if isinstance(leaf, nn.Conv2d)]
        norms = [leaf for leaf in leaves if isinstance(leaf, nn.BatchNorm2d)]
        channels = None
        if norms:
            channels = (_widths(shapes[0])[0] if shapes else norms[0].num_features, norms[-1].num_features)
        if name in CANDIDATES and channels and channels[0] != channels[1]:
            raise RefusedError(f"a candidate keeps its channels, this one leads from {channels[0]} to {channels[1]}")
        widths = sorted({width for conv in shapes for width in _widths(conv)})
        if name in CANDIDATES and len(widths) > 1:
            raise RefusedError(f"a candidate keeps its channels, this one has {' and '.join(map(str, widths))} inside")
        return Recipe(self._module, name, stride, leaves, channels)

    def _is_zero(self, result: Tensor) -> bool:
        x, h, w = self._x, result.shape[2:3], result.shape[3:4]
        halves = (x.shape[2:3], x.shape[3:4]), ((x.shape[2] // 2,), (x.shape[3] // 2,))
        sized = result.shape[:2] == x.shape[:2] and (h, w) in halves
        weights = any(True for _ in (*self._module.parameters(), *self._module.buffers()))
        return sized and not weights and not result.any()

    def _operation(self, t: Tensor) -> Operation:
        op = self._found.producer(t)
        if op is None:
            raise RefusedError("it reads something else than its input" if t is not self._x else "a ReLU is missing")
        if op not in self._matched:
            self._matched.append(op)
        return op

    def _leaf(self, t: Tensor, kind: type[nn.Module], otherwise: str) -> Operation:
        op = self._found.producer(t)
        if op is None or not isinstance(op.function, kind):
            raise RefusedError(f"{otherwise}: {'it is its input' if op is None else _name(op.function)} instead")
        self._operation(t)
        self._leaves.append(op.function)
        return op

    def _check_norm(self, norm: nn.BatchNorm2d) -> None:
        if any(name not in norm._parameters for name in ("weight", "bias")) or (norm.weight is None) != (
            norm.bias is None
        ):
            raise RefusedError("a batch norm has one of weight and bias only")

    def _convolution(self, t: Tensor) -> tuple[nn.Conv2d, Tensor]:
        op = self._leaf(t, nn.Conv2d, "a convolution is missing before a batch norm")
        conv = op.function
        if "weight" not in conv._parameters:
            raise RefusedError("the weight of a convolution is parametrised")
        if conv.bias is not None:
            raise RefusedError("a convolution has a bias")
        if conv.padding_mode != "zeros":
            raise RefusedError(f"a convolution pads with {conv.padding_mode}")
        if isinstance(conv.padding, str):
            raise RefusedError(f"a convolution has padding {conv.padding!r}, expected numbers")
        return conv, op.arguments[0]

    def _pool(self, op: Operation) -> Recipe:
        self._operation(op.result)
        given = list(op.arguments)
        if given[0] is not self._x:
            raise RefusedError("a pool reads something else than the edge's input")
        names = ["kernel", "stride", "padding"]
        defaults: dict[str, Any] = {"stride": given[1], "padding": 0, "ceil_mode": False}
        if op.function is _aten.max_pool2d_with_indices.default:
            rest = [("dilation", [1, 1]), ("ceil_mode", False)]
        else:
            rest = [("ceil_mode", False), ("count_include_pad", True), ("divisor_override", None)]
        values = dict(zip([*names, *(name for name, _ in rest)], given[1:], strict=False))
        values = {**defaults, **dict(rest), **values}
        kernel, stride, padding = (_pair(values[name]) for name in names)
        expected: dict[str, Any] = {"kernel": (3, 3), "padding": (1, 1), "ceil_mode": False, "dilation": (1, 1)}
        expected |= {"count_include_pad": False, "divisor_override": None}
        actual = {**values, "kernel": kernel, "padding": padding}
        if "dilation" in actual:
            actual["dilation"] = _pair(actual["dilation"])
        for name, value in expected.items():
            if name in actual and actual[name] != value:
                raise RefusedError(f"its pool has {name} {actual[name]}, expected {value}")
        return self._recipe(_POOLS[op.function], _stride(stride))

    def _stages(self, u: Tensor) -> tuple[tuple[Stage, ...], int]:
        """The stages that lead to `u`, the last 1×1 convolution's output, and the stride of the first."""
        stages: list[Stage] = []
        while True:
            stage, stride, x = self._stage(u)
            stages.insert(0, stage)
            if x is self._x:
                return tuple(stages), stride
            if stride != 1:
                raise RefusedError(f"a stage after the first has stride {stride}")
            norm = self._leaf(x, nn.BatchNorm2d, "there is no batch norm between two stages")
            assert isinstance(norm.function, nn.BatchNorm2d)
            self._check_norm(norm.function)
            u = norm.arguments[0]

    def _stage(self, u: Tensor) -> tuple[Stage, int, Tensor]:
        op = self._found.producer(u)
        if op is not None and op.function is _aten.cat.default:
            return self._reduce(op)
        conv, d = self._convolution(u)
        if conv.kernel_size != (1, 1) or conv.padding != (0, 0) or conv.groups != 1:
            raise RefusedError(f"it has {_kind_of(conv)} before a batch norm; the operator has plain 1×1 ones there")
        before = self._found.producer(d)
        if before is None or not isinstance(before.function, nn.Conv2d):
            if conv.stride != (1, 1):
                raise RefusedError(f"a 1×1 convolution has stride {conv.stride}")
            return Pointwise(), 1, self._before_relu(d)
        if conv.stride != (1, 1):
            raise RefusedError(f"a 1×1 convolution has stride {conv.stride}")
        depthwise, r = self._convolution(d)
        kernel, dilation = depthwise.kernel_size[0], depthwise.dilation[0]
        square = (depthwise.kernel_size, depthwise.dilation) == ((kernel,) * 2, (dilation,) * 2)
        if _widths(depthwise) != (depthwise.groups,) * 2 or not square:
            raise RefusedError(f"it has {_kind_of(depthwise)}; the operator has depthwise and 1×1 ones")
        padding = dilation * (kernel // 2)
        if depthwise.padding != (padding, padding):
            raise RefusedError(f"a convolution has padding {depthwise.padding}, expected {(padding, padding)}")
        return Depthwise(kernel, dilation), _stride(depthwise.stride), self._before_relu(r)

    def _reduce(self, cat: Operation) -> tuple[Stage, int, Tensor]:
        """Two 1×1 convolutions of stride 2, on x and on x shifted by a pixel, concatenated."""
        self._operation(cat.result)
        parts, axis = list(cat.arguments[0]), (cat.arguments[1:] or (0,))[0]
        if len(parts) != 2 or axis != 1:
            raise RefusedError(f"it concatenates {len(parts)} tensors along axis {axis}")
        (second, shifted), (first, x) = self._convolution(parts[1]), self._convolution(parts[0])
        for conv in (first, second):
            if (conv.kernel_size, conv.stride, conv.padding, conv.groups) != ((1, 1), (2, 2), (0, 0), 1):
                raise RefusedError(f"a convolution of its factorised reduce is not a 1×1 one of stride 2: {conv}")
        if _widths(first) != _widths(second):
            raise RefusedError("the halves of its factorised reduce differ in channels")
        if self._shift(shifted, x) != {2: 1, 3: 1}:
            raise RefusedError("the second half of its factorised reduce is not shifted by one pixel")
        return Reduce(), 2, self._before_relu(x)

    def _shift(self, t: Tensor, x: Tensor) -> dict[int, int]:
        """By how much `t` is a slice of `x`, by axis."""
        shift: dict[int, int] = {}
        while t is not x:
            op = self._operation(t)
            if _pads_for_odd_sizes(op):
                t = op.arguments[0]
                continue
            if op.function is not _aten.slice.Tensor:
                raise RefusedError(f"its factorised reduce reads {_name(op.function)}")
            defaults: list[Any] = [None, 0, None, None, 1]
            t, axis, start, end, step = [*op.arguments, *defaults[len(op.arguments) :]]
            if step != 1 or (end is not None and end < t.shape[axis]):
                raise RefusedError("its factorised reduce reads a part of its input")
            if start:
                shift[axis] = shift.get(axis, 0) + start
        return shift

    def _before_relu(self, r: Tensor) -> Tensor:
        if id(r) in self._found.rectified:
            return r
        op = self._found.producer(r)
        if op is None or op.function is not _aten.relu.default:
            raise RefusedError("there is no ReLU before a convolution")
        self._operation(r)
        out: Tensor = op.arguments[0]
        return out


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values * 2)[:2] if len(values) == 1 else values[:2]


def _stride(stride: Any) -> int:
    pair = _pair(stride)
    if pair not in ((1, 1), (2, 2)):
        raise RefusedError(f"its stride is {pair}, expected 1 or 2")
    return pair[0]


def _pads_for_odd_sizes(op: Operation) -> bool:
    """Whether it adds a row and a column of zeros at the end, which a shifted half reads if the size is odd."""
    padding = tuple(op.arguments[1:])
    return op.function is _aten.constant_pad_nd.default and padding in (([0, 1, 0, 1],), ([0, 1, 0, 1], 0))


def _described(stage: Stage) -> str:
    if isinstance(stage, Depthwise):
        return f"a depthwise {stage.kernel}×{stage.kernel} convolution of dilation {stage.dilation}"
    return f"a {type(stage).__name__.lower()} convolution"


def _kind_of(conv: nn.Conv2d) -> str:
    size = "×".join(map(str, conv.kernel_size))
    kind = "dense" if conv.groups == 1 else f"grouped ({conv.weight.shape[1]} channels each)"
    padded = "" if conv.kernel_size != (1, 1) or conv.padding == (0, 0) else " padded"
    dilated = "" if conv.dilation == (1, 1) else f" of dilation {_pair(conv.dilation)[0]}"
    return f"a {kind}{padded} {size} convolution{dilated}"


def _name(function: Any) -> str:
    return type(function).__name__ if isinstance(function, nn.Module) else str(function).removesuffix(".default")


_HARMLESS = (_aten.alias.default, _aten.detach.default)
