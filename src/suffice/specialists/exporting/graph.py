"""Writing an ONNX graph down, operator by operator: the notation that the other files of this folder share.

Needs the package `onnx`. Values are the names of tensors. What this does not know: shapes and types; onnxruntime checks
both when it loads the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

OPSET = 18
IR_VERSION = 10
"""The oldest that hold every operator used here, so that older runtimes load the graph."""


class Graph:
    """Nodes and constants in the order in which they were written."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """A tensor that never changes; equal ones are kept once."""
        from onnx import numpy_helper

        held = np.ascontiguousarray(np.asarray(array, dtype=dtype)).reshape(np.shape(array))
        key = held.dtype.str, held.shape, held.tobytes()
        if key not in self._known:
            name = f"c{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(held, name))
            self._known[key] = name
        return self._known[key]

    def ints(self, *values: int) -> str:
        """A constant of whole numbers: shape (len(values),)."""
        return self.constant(np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        """A constant in double precision: shape ()."""
        return self.constant(np.array(value, dtype=np.float64))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One operator; its first result."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, results: int, *inputs: str, **attributes: Any) -> list[str]:
        """One operator; its first `results` results."""
        from onnx import helper

        names = [f"n{len(self._nodes)}_{at}" for at in range(results)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def named(self, value: str, name: str) -> None:
        """Give a value the name under which it is a result of the graph."""
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name]))

    # ------------------------------------------------------------------------------------------ what is said often

    def cast(self, value: str, dtype: npt.DTypeLike) -> str:
        """As numbers of another type."""
        from onnx import helper

        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def double(self, array: npt.NDArray[Any]) -> str:
        """A constant of smaller numbers, widened when the graph is loaded."""
        return self.cast(self.constant(array), np.float64)

    def joined(self, *values: str, axis: int = 0) -> str:
        """One behind the other."""
        return self.op("Concat", *values, axis=axis)

    def flat(self, value: str) -> str:
        """As one row."""
        return self.op("Reshape", value, self.ints(-1))

    def scalar(self, value: str) -> str:
        """A tensor of one element without its axis."""
        return self.op("Reshape", value, self.constant(np.zeros(0, dtype=np.int64)))

    def length(self, value: str) -> str:
        """How long the first axis is: shape (1,)."""
        return self.op("Shape", value, start=0, end=1)

    def cut(self, value: str, start: str, stop: str) -> str:
        """From `start` to `stop` (exclusive) along the first axis; both of shape (1,)."""
        return self.op("Slice", value, start, stop, self.ints(0))

    def where(self, mask: str) -> str:
        """The positions at which a row is true."""
        return self.flat(self.op("NonZero", mask))

    def total(self, value: str) -> str:
        """The sum over all elements: shape ()."""
        return self.op("ReduceSum", value, keepdims=0)

    def model(self, inputs: Sequence[tuple[str, Any, int]], outputs: Sequence[tuple[str, Any, int]]) -> Any:
        """The model: inputs and outputs with so many axes, each of any length; types as numpy's. Checked."""
        import onnx
        from onnx import helper

        def told(name: str, dtype: Any, axes: int) -> Any:
            shape = [f"{name}_{axis}" for axis in range(axes)]
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        taken, given = ([told(*each) for each in some] for some in (inputs, outputs))
        graph = helper.make_graph(self._nodes, "specialist", taken, given, self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="suffice")
        onnx.checker.check_model(model)
        return model


def log1p(graph: Graph, x: str) -> str:
    """log(1 + x), exact for small x, which the graph's own logarithm is not (Kahan: the rounding of 1 + x cancels)."""
    one = graph.number(1)
    raised = graph.op("Add", x, one)
    rounded = graph.op("Sub", raised, one)
    nothing = graph.op("Equal", rounded, graph.number(0))
    safe = graph.op("Where", nothing, one, rounded)
    return graph.op("Where", nothing, x, graph.op("Div", graph.op("Mul", x, graph.op("Log", raised)), safe))


def expm1(graph: Graph, x: str) -> str:
    """exp(x) - 1 for x at most 0, exact for small x."""
    one = graph.number(1)
    raised = graph.op("Exp", x)
    less = graph.op("Sub", raised, one)
    same = graph.op("Equal", less, graph.number(0))
    gone = graph.op("Equal", raised, graph.number(0))
    log = graph.op("Log", graph.op("Where", gone, one, raised))
    plain = graph.op("Or", same, gone)
    safe = graph.op("Where", plain, one, log)
    exact = graph.op("Div", graph.op("Mul", less, x), safe)
    return graph.op("Where", gone, less, graph.op("Where", same, x, exact))
