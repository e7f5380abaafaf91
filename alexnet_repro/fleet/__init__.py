"""Many machines' results files, compared with each other: which of them isn't like the others?"""
