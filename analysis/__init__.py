"""From MLflow records to tables: reads what :mod:`study.schema` names, writes nothing into the records.

The usual way through::

    records = Records.load(home, "table4_d5")
    table = make_table(records)
    text = render(table, "markdown")
"""
