"""The networks that a spec can name: as torch modules, as one flat vector, as passes over blocks of rows."""
