"""Anchor sizes by name: numbers only, so that a config can be read without torch."""


def _anchor(
    layers: int, d_model: int, heads: int, head_dim: int, ffn: int, tied: bool
) -> dict[str, int | bool]:
    return {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "head_dim": head_dim,
        "ffn": ffn,
        "tied": tied,
    }


ANCHOR_SIZES = {
    # Ours: 4 layers, more from d192 on, inner width near 8/3 d, rounded up to a multiple of 8.
    "d16": _anchor(2, 16, 1, 16, 48, True),  # for tests
    "d24": _anchor(4, 24, 2, 12, 64, True),
    "d32": _anchor(4, 32, 2, 16, 88, True),
    "d48": _anchor(4, 48, 3, 16, 128, True),
    "d64": _anchor(4, 64, 2, 32, 176, True),
    "d96": _anchor(4, 96, 3, 32, 256, True),
    "d128": _anchor(4, 128, 4, 32, 344, True),
    "d160": _anchor(4, 160, 5, 32, 432, True),
    "d192": _anchor(6, 192, 6, 32, 512, True),
    "d256": _anchor(6, 256, 8, 32, 688, True),
    "d320": _anchor(8, 320, 10, 32, 856, True),
    "d640": _anchor(8, 640, 20, 32, 1712, True),
    # The paper's: arXiv 2510.02375, tables 4 to 6 and 8.
    "160m": _anchor(35, 512, 12, 32, 2048, True),
    "260m": _anchor(12, 1024, 16, 64, 2816, False),
    "320m": _anchor(17, 1024, 16, 64, 2816, False),
    "350m": _anchor(19, 1024, 16, 64, 2816, False),
    "370m": _anchor(21, 1024, 16, 64, 2816, False),
    "390m": _anchor(22, 1024, 16, 64, 2816, False),
    "410m": _anchor(24, 1024, 16, 64, 2816, False),
    "1.4b": _anchor(24, 2048, 16, 128, 5632, False),
}
