def show(rows):
    return ""


def write_figure(rows, path):
    pass
