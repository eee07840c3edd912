"""What is known of the machine: the kind of processor, in words that tell two generations apart."""

import pytest

from cxgrad_jax import machine


def test_the_kind_of_processor_tells_two_generations_of_one_name_apart(monkeypatch):
    core = "processor\t: {i}\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n\n"

    def cpuinfo(model):
        return "".join(core.format(i=i, model=model) for i in range(2))

    monkeypatch.setattr("pathlib.Path.read_text", lambda self: cpuinfo(17))
    assert machine.processor() == "AMD EPYC, family 25, model 17"
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: cpuinfo(97))
    assert machine.processor() == "AMD EPYC, family 25, model 97"


@pytest.mark.parametrize("content", [None, "processor\t: 0\nCPU implementer\t: 0x41\n\n"])
def test_a_system_that_names_no_model_says_what_it_can(monkeypatch, content):
    def read_text(self):
        if content is None:
            raise FileNotFoundError(self)
        return content

    monkeypatch.setattr("pathlib.Path.read_text", read_text)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine.processor() == "aarch64"
