"""What a run will do (Plan) and has done (Report), its wording, model card and report page."""
