"""Every target, by its name."""

from . import objects, texts, wire

TARGETS = {target.name: target for target in (*wire.TARGETS, *texts.TARGETS, *objects.TARGETS)}
