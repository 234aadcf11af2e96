"""What the notebooks are made of: prose, cells and pictures around the lessons."""
