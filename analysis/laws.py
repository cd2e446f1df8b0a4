"""Dense scaling laws, one class each."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.law import Floats, Law, Parameters, Range, Table, Term


class Saturating(Law):
    """One input, one floor."""

    name = "saturating"
    formula = "L = E + A / N^alpha"
    source = "arXiv 2010.14701, eq. 1.1"
    inputs = ("N",)
    parameters = ("E", "A", "alpha")
    logarithmic = ("E", "A")
    units: Mapping[str, str] = {"E": "loss", "A": "loss x N^alpha", "alpha": "-"}

    def terms(self, logs: Table) -> Sequence[Term]:
        return Term("E"), Term("A", {"alpha": -logs["N"]})

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        E, A, alpha = (parameters[name] for name in self.parameters)
        return E + A / x["N"] ** alpha


class Chinchilla(Law):
    """Model size and data, each with its own exponent."""

    name = "chinchilla"
    formula = "L = E + A / N^alpha + B / D^beta"
    source = "arXiv 2203.15556, eq. 2"
    inputs = ("N", "D")
    parameters = ("E", "A", "B", "alpha", "beta")
    logarithmic = ("E", "A", "B")
    units: Mapping[str, str] = {
        "E": "loss",
        "A": "loss x N^alpha",
        "B": "loss x D^beta",
        "alpha": "-",
        "beta": "-",
    }

    def terms(self, logs: Table) -> Sequence[Term]:
        return Term("E"), Term("A", {"alpha": -logs["N"]}), Term("B", {"beta": -logs["D"]})

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        E, A, B, alpha, beta = (parameters[name] for name in self.parameters)
        return E + A / x["N"] ** alpha + B / x["D"] ** beta


class Tied(Law):
    """One exponent for size and data: what training at a fixed ratio of tokens to parameters
    gives.
    """

    name = "tied"
    formula = "L = E + A N^eta + B 6^(eta/2) D^eta"
    source = "arXiv 2403.08540, eq. 4, with D = M N"
    inputs = ("N", "D")
    parameters = ("A", "B", "eta", "E")
    logarithmic = ("A", "B", "E")
    units: Mapping[str, str] = {
        "A": "loss / N^eta",
        "B": "loss / D^eta",
        "eta": "-, negative",
        "E": "loss",
    }

    def terms(self, logs: Table) -> Sequence[Term]:
        data = logs["D"] + np.log(6) / 2
        return Term("A", {"eta": logs["N"]}), Term("B", {"eta": data}), Term("E")

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        A, B, eta, E = (parameters[name] for name in self.parameters)
        return E + A * x["N"] ** eta + B * 6 ** (eta / 2) * x["D"] ** eta

    def ranges(self) -> dict[str, tuple[Range, Range]]:
        return {"eta": ((-1.0, -0.05), (-4.0, 0.0))}


class Kaplan(Law):
    """No floor; size and data limit each other inside one power."""

    name = "kaplan"
    formula = "L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D"
    source = "arXiv 2001.08361, eq. 1.5"
    inputs = ("N", "D")
    parameters = ("N_c", "D_c", "alpha_N", "alpha_D")
    logarithmic = ("N_c", "D_c")
    units: Mapping[str, str] = {
        "N_c": "N loss^(1/alpha_N)",
        "D_c": "D loss^(1/alpha_D)",
        "alpha_N": "-",
        "alpha_D": "-",
    }
    outer = "alpha_D"

    @property
    def coordinates(self) -> tuple[str, ...]:
        return ("ratio log N_c", "log D_c", "ratio", "alpha_D")  # ratio = alpha_N / alpha_D

    def terms(self, logs: Table) -> Sequence[Term]:
        size = Term("ratio log N_c", {"ratio": -logs["N"]})
        return size, Term("log D_c", offset=-logs["D"])

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        N_c, D_c, alpha_N, alpha_D = (parameters[name] for name in self.parameters)
        return ((N_c / x["N"]) ** (alpha_N / alpha_D) + D_c / x["D"]) ** alpha_D

    def to_parameters(self, theta: Floats) -> dict[str, float]:
        size, data, ratio, alpha_D = (float(value) for value in theta)
        values = (np.exp(size / ratio), np.exp(data), ratio * alpha_D, alpha_D)
        return {name: float(v) for name, v in zip(self.parameters, values, strict=True)}

    def to_coordinates(self, parameters: Parameters) -> Floats:
        N_c, D_c, alpha_N, alpha_D = (parameters[name] for name in self.parameters)
        ratio = alpha_N / alpha_D
        return np.array([ratio * np.log(N_c), np.log(D_c), ratio, alpha_D])

    def ranges(self) -> dict[str, tuple[Range, Range]]:
        inside = ((0.0, 15.0), (-100.0, 300.0))  # log L / alpha_D, and alpha_D is often near 0.1
        return {
            "ratio log N_c": inside,
            "log D_c": inside,
            "ratio": ((0.2, 2.0), (1e-3, 20.0)),
            "alpha_D": ((0.03, 0.6), (1e-3, 4.0)),
        }


class PowerLaw(Law):
    """What minima of iso-FLOP curves are fitted with: the best N, D or loss against compute."""

    name = "power"
    formula = "y = k C^p"
    source = "arXiv 2203.15556, 3.2"
    inputs = ("C",)
    parameters = ("k", "p")
    logarithmic = ("k",)
    units: Mapping[str, str] = {"k": "y / C^p", "p": "-"}

    def terms(self, logs: Table) -> Sequence[Term]:
        return (Term("k", {"p": logs["C"]}),)

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        return parameters["k"] * x["C"] ** parameters["p"]

    def ranges(self) -> dict[str, tuple[Range, Range]]:
        return {"p": ((-1.0, 1.0), (-4.0, 4.0))}
