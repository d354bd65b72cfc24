"""Bugs of an exporter or of a converter: the graph is another one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tumorseg_benchmarks.mutants.mutant import Mutant, edited
from tumorseg_benchmarks.mutants.testbed import DEEPLAB
from tumorseg_export.onnx.export import INPUT, OUTPUT

Model = onnx.ModelProto


def of_type(model: Model, operator: str) -> list[onnx.NodeProto]:
    """The nodes of an operator, in the graph's order; an AssertionError where there is none to break."""
    nodes = [node for node in model.graph.node if node.op_type == operator]
    assert nodes, f"the graph has no {operator}"
    return nodes


def attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set an attribute."""
    for old in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, value))


def constant(model: Model, name: str, value: object, dtype: type = np.float32) -> str:
    """A new initializer."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def before_output(model: Model, nodes: Sequence[onnx.NodeProto]) -> None:
    """Append nodes that read 'right' and give the graph's output."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == OUTPUT:
                node.output[index] = "right"
    model.graph.node.extend(nodes)


def insert_before(model: Model, node: onnx.NodeProto, new: onnx.NodeProto, index: int = 0) -> None:
    """A node with one output in front of an input of another."""
    node.input[index] = new.output[0]
    model.graph.node.insert(list(model.graph.node).index(node), new)


def batch_frozen(model: Model) -> None:
    """The batch axis is the constant 1, as an example of one image leaves it."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def first_for_all(model: Model) -> None:
    """Every image of a batch is answered with the first one's logits."""
    constant(model, "first", [0], np.int64)
    before_output(
        model,
        [
            helper.make_node("Gather", ["right", "first"], ["of_first"], axis=0),
            helper.make_node("Shape", ["right"], ["size"]),
            helper.make_node("Expand", ["of_first", "size"], [OUTPUT]),
        ],
    )


def mates_mixed(model: Model) -> None:
    """One per cent of the mean over the batch is in every image's features."""
    node = of_type(model, "Relu")[-1]
    right = node.output[0]
    constant(model, "share", 0.01)
    constant(model, "rest", 0.99)
    constant(model, "axis", [0], np.int64)
    for reader in model.graph.node:
        for index, name in enumerate(reader.input):
            if name == right:
                reader.input[index] = "mixed"
    at = list(model.graph.node).index(node) + 1
    new = [
        helper.make_node("ReduceMean", [right, "axis"], ["of_batch"], keepdims=1),
        helper.make_node("Mul", ["of_batch", "share"], ["of_mates"]),
        helper.make_node("Mul", [right, "rest"], ["own"]),
        helper.make_node("Add", ["own", "of_mates"], ["mixed"]),
    ]
    for offset, one in enumerate(new):
        model.graph.node.insert(at + offset, one)


def sigmoid_twice(model: Model) -> None:
    """The graph ends with the sigmoid that the device applies, too."""
    before_output(model, [helper.make_node("Sigmoid", ["right"], [OUTPUT])])


def background(model: Model) -> None:
    """Of a head with two channels, the background's is taken: its logit is the negative one."""
    before_output(model, [helper.make_node("Neg", ["right"], [OUTPUT])])


def nan_swallowed(model: Model) -> None:
    """A weight of the head is NaN, and what is not a number becomes 0 on the way out."""
    head = next(one for one in model.graph.initializer if one.name == "segmentation_head.0.weight")
    values = numpy_helper.to_array(head).copy()
    values.flat[0] = np.nan
    head.CopyFrom(numpy_helper.from_array(values, head.name))
    constant(model, "zero", 0)
    before_output(
        model,
        [
            helper.make_node("IsNaN", ["right"], ["broken"]),
            helper.make_node("Where", ["broken", "zero", "right"], [OUTPUT]),
        ],
    )


def skip_dropped(model: Model) -> None:
    """One decoder block sees zeros in place of the encoder's features."""
    node = [one for one in of_type(model, "Concat") if one.attribute[0].i == 1][-1]
    constant(model, "nothing", 0)
    insert_before(model, node, helper.make_node("Mul", [node.input[1], "nothing"], ["dropped"]), 1)


def relu6(model: Model) -> None:
    """Every ReLU ends at 6."""
    low, high = constant(model, "low", 0), constant(model, "high", 6)
    for node in of_type(model, "Relu"):
        node.op_type = "Clip"
        node.input.extend([low, high])


def bilinear_block(model: Model) -> None:
    """The last decoder block upsamples bilinearly in place of nearest."""
    node = of_type(model, "Resize")[-1]
    attribute(node, "mode", "linear")
    attribute(node, "coordinate_transformation_mode", "half_pixel")


def head_not_aligned(model: Model) -> None:
    """The head upsamples with half-pixel centres in place of aligned corners."""
    attribute(of_type(model, "Resize")[-1], "coordinate_transformation_mode", "half_pixel")


def padding_shifted(model: Model) -> None:
    """The first convolution pads one pixel more below and to the right than above and to the left."""
    attribute(of_type(model, "Conv")[0], "pads", [2, 2, 4, 4])


def padding_repeated(model: Model) -> None:
    """The head's convolution pads with the border's values in place of zeros."""
    node = of_type(model, "Conv")[-1]
    attribute(node, "pads", [0, 0, 0, 0])
    constant(model, "pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    insert_before(model, node, helper.make_node("Pad", [node.input[0], "pads"], ["padded"], mode="edge"))


def relu_dropped(model: Model) -> None:
    """One activation is lost."""
    node = of_type(model, "Relu")[-1]
    node.op_type = "Identity"


def output_half(model: Model) -> None:
    """The output declares and gives FP16."""
    before_output(model, [helper.make_node("Cast", ["right"], [OUTPUT], to=TensorProto.FLOAT16)])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def input_transposed(model: Model) -> None:
    """The graph exchanges height and width, and takes the result for an image of the same size."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    constant(model, "shape", [-1, *shape[1:]], np.int64)
    first = of_type(model, "Conv")[0]
    turned = helper.make_node("Transpose", [INPUT], ["turned"], perm=[0, 1, 3, 2])
    insert_before(model, first, helper.make_node("Reshape", ["turned", "shape"], ["taken"]))
    model.graph.node.insert(0, turned)


def dilation_ignored(model: onnx.ModelProto) -> None:
    """Dilated convolutions become dense ones of the same size."""
    for node in of_type(model, "Conv"):
        sizes = {one.name: list(one.ints) for one in node.attribute}
        if sizes["dilations"] != [1, 1] and sizes["kernel_shape"] == [3, 3]:
            attribute(node, "dilations", [1, 1])
            attribute(node, "pads", [1, 1, 1, 1])


def average_pool(model: onnx.ModelProto) -> None:
    """The stem's pool takes the mean in place of the maximum."""
    node = of_type(model, "MaxPool")[0]
    node.op_type = "AveragePool"
    for one in [one for one in node.attribute if one.name in ("storage_order", "dilations")]:
        node.attribute.remove(one)


MUTANTS = (
    Mutant("batch frozen at 1", "graph", edited(batch_frozen)),
    Mutant("first image of a batch answers for all", "graph", edited(first_for_all)),
    Mutant("batch mates mixed", "graph", edited(mates_mixed)),
    Mutant("double sigmoid: one in the graph", "graph", edited(sigmoid_twice)),
    Mutant("wrong class channel", "graph", edited(background)),
    Mutant("NaN swallowed", "graph", edited(nan_swallowed)),
    Mutant("skip connection dropped", "graph", edited(skip_dropped)),
    Mutant("ReLU6 for ReLU", "graph", edited(relu6)),
    Mutant("one ReLU dropped", "graph", edited(relu_dropped)),
    Mutant("wrong upsampling in one decoder block", "graph", edited(bilinear_block)),
    Mutant("align_corners flipped in the head", "graph", edited(head_not_aligned), DEEPLAB),
    Mutant("padding of a stride-2 convolution shifted", "graph", edited(padding_shifted)),
    Mutant("padding value wrong in the head", "graph", edited(padding_repeated)),
    Mutant("height and width exchanged in the graph", "graph", edited(input_transposed)),
    Mutant("FP16 output of an FP32 file", "graph", edited(output_half)),
    Mutant("dilation ignored", "graph", edited(dilation_ignored), DEEPLAB, late=True),
    Mutant("average in place of max pool", "graph", edited(average_pool), late=True),
)
