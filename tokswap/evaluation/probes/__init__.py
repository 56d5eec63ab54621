"""Questions with known answers, asked of a model beside its loss: spelling, arithmetic, facts, and lm-eval tasks."""
