"""Evaluation of a network of PyTorch's by programs that only evaluate, exported as ONNX."""

import io
import warnings


def onnxruntime(model, x, cores):
    """Return a function that returns the logits of x, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    # all engines run in one process: threads that wait in a loop would take the others' cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(export(model, x), options, providers=providers)
    images = {"images": x.numpy()}
    return lambda: session.run(None, images)[0]


def openvino(model, x, cores):
    """Return a function that returns the logits of x, by OpenVINO."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # this thread is the other engines' too
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(export(model, x)), "CPU", settings)
    images = x.numpy()
    return lambda: compiled([images], share_inputs=True)[0]


def export(model, x):
    """Return the network in evaluation as ONNX, for batches like x."""
    import torch

    model.eval()
    file = io.BytesIO()
    with warnings.catch_warnings():  # the newer exporter needs a package more
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(model, (x,), file, dynamo=False, input_names=["images"])
    return file.getvalue()
