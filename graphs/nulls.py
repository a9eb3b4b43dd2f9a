"""What null means in what others write: nothing, as for clients and model files of LocalAI."""

from pydantic import BaseModel, model_validator


class NullsAbsent(BaseModel):
    """Base of requests and settings: null in a field that may be left out is as if it were left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields.items()
        optional = {key for name, one in fields if not one.is_required() for key in (name, one.alias)}
        return {key: value for key, value in data.items() if value is not None or key not in optional}
