"""Tests of how members reach the coordinator."""
