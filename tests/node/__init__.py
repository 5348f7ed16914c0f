"""Tests of a hospital's side: rows in, one noisy vector out."""
