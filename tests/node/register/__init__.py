"""Tests of a hospital's private register."""
