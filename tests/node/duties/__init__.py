"""Tests of what a node may and must do."""
