"""Tests of an experiment in data: schema, spec, plan, average."""
