"""A trained run as a folder for others: safetensors, ONNX and a model card, each checked before it is there.

python -m autoencoders.export run=<run> out=<folder>
"""
