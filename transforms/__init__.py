"""Beam stages (verb files) and the plug-ins they call (noun folders, which never import Beam)."""
