"""Reads what people write, strictly: files, objects of an API server, and variables whose values are documents.

A key that is not known, or a value of another type, is an error that names the path of the field and the nearest key
that there is: a misspelt key must never count as one that was left out.
"""

from .fields import Field, Fields
from .nearest import any_of, instead_of, nearest
from .texts import read_json, read_yaml, yaml_faults

__all__ = ["Field", "Fields", "any_of", "instead_of", "nearest", "read_json", "read_yaml", "yaml_faults"]
