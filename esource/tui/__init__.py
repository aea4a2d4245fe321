"""A look inside a store, in the terminal: what ``esource inspect`` shows. Needs the extra ``tui``.

`app` is the frame: the tabs, the end of the log, what is wrong. Each tab is a `panes.Pane`, a list that is read
page by page beside the details of the row under the cursor: `streams`, `log`, `projections`, `dead_letters` and
`outbox`. `details` turns rows into text. Everything is read through `esource.browsing` and the store.
"""
