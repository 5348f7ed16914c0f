"""The deployment files: what can be checked of them without a container engine or a running systemd.

References are compared with one another, units are parsed by systemd's own tool where it is installed.
"""
