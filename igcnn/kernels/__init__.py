"""Array functions, one op a file: forward and backward, without tape, layers or devices.

Arrays have the shape (N, C, H, W). Any memory order is accepted; fastest, and what the
convolutions return, is batch innermost: (C, H, W, N) in memory, so that one row of an image,
for all images of the batch, is one contiguous run.
"""
