"""PROTEUS: from a proteomics table to hypotheses in which every number is checked.

Importing the package is light; what needs an optional library is imported when it is first used.
"""
