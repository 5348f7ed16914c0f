"""Tests of a node's copy of the log, and what it witnesses."""
