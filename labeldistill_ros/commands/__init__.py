# SPDX-License-Identifier: Apache-2.0
"""The commands, thin: each calls a function of the library and prints what it returns.

A command that has options takes the frozen dataclass that the function below it takes: each option
is written down once, its docstring is the help.
"""
