"""Compilers and runtimes of deployment targets, each in a Python environment of its own.

They pin versions that exclude each other, and several crash or exit, so that deployconv never
imports one: `program` runs with the Python of the environment and loads one file of ``adapters``.
"""
