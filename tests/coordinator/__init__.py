"""The coordinator: its log, its rounds, its API on a real socket, its crashes."""
