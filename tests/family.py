"""The models that there are: whoever adds a file to conf/model/ has it tried by every test of the family."""

import tiny

MODELS = sorted(path.stem for path in (tiny.REPOSITORY / "conf" / "model").glob("[!_]*.yaml"))
# What makes a model small, where `model.code_dim=3` is not what does.
RESNET = ["network.widths=[4,8]", "network.depth=1", "network.hidden=4"]
SMALLER = {
    "restoration": ["network.widths=[4,8]"],
    "fsq": RESNET,
    "vq_vae": [*RESNET, "model.embedding_dim=4", "model.codebook_size=8", "model.levels=2"],
    # Few steps, of which some are of each phase.
    "dec": ["model.code_dim=3", "model.clusters=3", "model.pretraining_steps=3", "model.shift=1"],
    "stacked": ["model.code_dim=3", "network.hidden=[8,5]", "model.layer_steps=2"],
    "colorization_classes": ["network.widths=[4,8]", "model.bin_size=50"],
}
COLOURS = ("colorization", "colorization_classes")  # these keep the gray image's lightness: no corruption


def smaller(model: str) -> list[str]:
    """Overrides that choose the model, as small as it can be."""
    return [f"model={model}", *SMALLER.get(model, ["model.code_dim=3"])]
