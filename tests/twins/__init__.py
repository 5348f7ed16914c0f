"""Neighbour twins: hospitals that differ in one patient must look alike from outside."""
