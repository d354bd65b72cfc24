import onnx
import pytest
from onnx import TensorProto, helper

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx.complexity import count_flops
from tumorseg_export.onnx.export import to_onnx
from tumorseg_runtime.core.errors import CheckFailedError

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], shape: list[object]
) -> onnx.ModelProto:
    initializers = []
    for name, dims in weights.items():
        size = 1
        for dim in dims:
            size *= dim
        initializers.append(helper.make_tensor(name, FLOAT, dims, [0.0] * size))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("image", FLOAT, shape)],
            [helper.make_tensor_value_info("logits", FLOAT, None)],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def test_convolution_with_stride_groups_and_dilation() -> None:
    model = graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "w2"], ["logits"], group=4, dilations=[2, 2], pads=[2, 2, 2, 2]),
        ],
        {"w1": (8, 3, 3, 3), "w2": (4, 2, 3, 3)},
        ["batch", 3, 32, 64],
    )
    first = 2 * (16 * 32) * 8 * 3 * 9
    second = 2 * (16 * 32) * 4 * 2 * 9
    assert count_flops(model) == first + second


def test_transposed_convolution_and_matrix_products() -> None:
    model = graph(
        [
            helper.make_node("ConvTranspose", ["image", "w1"], ["a"], strides=[2, 2]),
            helper.make_node("ReduceMean", ["a"], ["b"], keepdims=0),
            helper.make_node("Flatten", ["a"], ["c"]),
            helper.make_node("Gemm", ["c", "w2"], ["logits"], transB=1),
        ],
        {"w1": (3, 5, 2, 2), "w2": (7, 5 * 16 * 16)},
        ["batch", 3, 8, 8],
    )
    assert count_flops(model) == 2 * (8 * 8 * 3 * 5 * 4 + 7 * 5 * 16 * 16)


@pytest.mark.slow
def test_exported_network_is_counted_for_one_image(small_context: ExportContext) -> None:
    expected = 2 * 9 * (64 * 64 * 8 * 3 + 32 * 32 * 8 * 8 + 64 * 64 * 1 * 16)
    assert count_flops(to_onnx(small_context.model, small_context.contract)) == expected


def test_open_shape_is_refused() -> None:
    model = graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"])], {"w": (8, 3, 3, 3)}, ["batch", 3, "h", "w"]
    )
    with pytest.raises(CheckFailedError, match="'logits'"):
        count_flops(model)
