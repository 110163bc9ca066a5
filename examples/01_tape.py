"""One multiplication on the tape: what is recorded, and what backward does with it."""

import numpy as np

from igcnn import Tensor
from igcnn.autograd import RecordHook, Tape

x = Tensor([2.0, 3.0], requires_grad=True, name="x")
w = Tensor([5.0, 7.0], requires_grad=True, name="w")
loss = (x * w + 1).sum()

print("loss = Σ (x·w + 1) =", loss.item())
print("\nThe tape, oldest record first:")
tape = Tape.of(loss)
print(tape)

print("\nReplayed with x = [1, 1]:")
x.data = np.array([1.0, 1.0], np.float32)
print("loss =", tape.replay().item())

print("\nBackward walks the tape from the end:")
with RecordHook() as record:
    loss.backward()
for call in record.calls:
    print(f"  {call.direction} of {call.name:9} gy {call.output_shape} -> {call.input_shapes}")
print("∂loss/∂x =", x.grad, " (it is w)")
print("∂loss/∂w =", w.grad, " (it is x)")
assert x.grad.tolist() == [5, 7]
assert w.grad.tolist() == [1, 1]
