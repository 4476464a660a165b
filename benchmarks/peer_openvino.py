"""OpenVINO's BinaryConvolution, its hand-written binary kernel for x86.

It computes with bits only after a FakeQuantize with outputs (0, 1), and with weights of type u1 whose first bit is the
lowest; any other form gives other numbers without a word. There must be one threshold per channel: with a single number
2026.4 crashes on channels-last input. A multiplication after the convolution is fused into it.
"""

import sys

import numpy as np

from .peers import absent, serve


def tasks(core):
    def convolution(arrays, padding, layout):
        """x (N, H, W, C), w (kh, kw, C, O), alpha (O,); with layout "nhwc" in and out are channels-last."""
        x, w, alpha = arrays["x"], arrays["w"], arrays["alpha"]
        channels = x.shape[3]
        kernel = np.ascontiguousarray(w.transpose(3, 2, 0, 1))  # (O, C, kh, kw)
        bits = np.packbits((kernel >= 0).ravel(), bitorder="little")
        tensor = ov.Tensor(bits, ov.Shape(kernel.shape), ov.Type.u1)

        def each_channel(value):
            return opset.constant(np.full((1, channels, 1, 1), value, np.float32))

        nchw = x.transpose(0, 3, 1, 2)
        data = opset.parameter(nchw.shape, ov.Type.f32)
        zero, one = each_channel(0), each_channel(1)
        signs = opset.fake_quantize(data, zero, zero, zero, one, 2)
        pads = [padding, padding]
        counts = opset.binary_convolution(
            signs, ov.op.Constant(tensor), [1, 1], pads, pads, [1, 1], "xnor-popcount", 0.0
        )
        out = opset.multiply(counts, opset.constant(alpha.reshape(1, -1, 1, 1)))
        model = ov.Model([out], [data])
        if layout == "nhwc":
            process = PrePostProcessor(model)
            for end in (process.input(), process.output()):
                end.tensor().set_layout(Layout("NHWC"))
                end.model().set_layout(Layout("NCHW"))
            model = process.build()
        compiled = core.compile_model(model, "CPU")
        source = ov.Tensor(np.ascontiguousarray(x if layout == "nhwc" else nchw))
        request = compiled.create_infer_request()
        request.set_input_tensor(source)

        def call(keep=(bits, tensor, model, compiled, source)):  # OpenVINO reads their memory without owning it
            request.infer()

        call.kernels = [
            str(op.get_rt_info()["primitiveType"].astype(str)) for op in compiled.get_runtime_model().get_ops()
        ]
        call()
        out = request.get_output_tensor().data
        return call, out if layout == "nhwc" else out.transpose(0, 2, 3, 1)

    return {"convolution": convolution}


def binary_kernel(convolution):
    """The name of the kernel that binary convolutions get."""
    x, w = np.ones((1, 8, 8, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
    call, _ = convolution({"x": x, "w": w, "alpha": np.ones(64, np.float32)}, padding=1, layout="nhwc")
    return next(name for name in call.kernels if name.startswith("jit") and name.endswith("u1"))


if __name__ == "__main__":
    try:
        import openvino as ov
        from openvino import Layout
        from openvino import opset13 as opset
        from openvino.preprocess import PrePostProcessor
    except ImportError as error:
        absent(error)
    else:
        core = ov.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": int(sys.argv[1]), "NUM_STREAMS": 1})
        known = tasks(core)
        serve(ov.__version__.split("-")[0], binary_kernel(known["convolution"]), known)
