"""A trained detector as one file that runs without this package: pictures in, detections out.

`resize` makes a picture's pixels in the graph exactly as evaluation makes them; `graph` is the
whole detector as one module; `suppression` its non-maximum suppression, in torch and in ONNX;
`onnx_file` and `torch_files` write and run the three kinds of file; `check` compares what a file
finds with what PyTorch finds; `quantise` makes int8 of an ONNX file; `card` describes the model;
`export` does it all.
"""
