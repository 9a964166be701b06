"""The colours of classes and lines: the same in every figure and page, told apart with any colour vision."""

import colorsys

# Petroff 2021, "Accessible color sequences for data visualization": ten, on light and dark backgrounds.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


GRAY = COLOURS[8]  # of what stands beside


def of_classes(count: int) -> list[str]:
    """A colour for each class. More than ten can't all be told apart by colour alone: they go around the
    circle of hues, light and dark by turns."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    colours = []
    for index in range(count):
        parts = colorsys.hls_to_rgb(index / count, 0.4 if index % 2 else 0.6, 0.7)
        colours.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return colours
