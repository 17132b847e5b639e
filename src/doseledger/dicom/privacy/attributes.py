"""Attributes of DICOM PS3.15 Table E.1-1 (edition 2024c), as data.

The table's dates and times (VR DA, TM, DT; but for the patient's birth), person names (PN) and UIDs (UI) are not
listed one by one: `phi` goes by the VR, so it covers every attribute of those kinds, those that the table leaves out
too. What is listed here is the rest, grouped by the profile's action: X remove, Z empty, D dummy value; where the
table gives a choice (X/Z, X/D, X/Z/D, Z/D) the one that keeps an RT object valid is taken. UIDs, and sequences that the
table treats as UIDs, are `deidentify`'s alone.
"""

from __future__ import annotations

import re

from pydicom.datadict import tag_for_keyword

REMOVE = """
AcquisitionComments AcquisitionProtocolDescription ActualHumanPerformersSequence AdditionalPatientHistory AddressTrial
AdmissionID AdmittingDiagnosesCodeSequence AdmittingDiagnosesDescription Allergies AnnotationGroupDescription Arbitrary
AuthorObserverSequence BeamDescription BolusDescription BranchOfService CameraOwnerName CassetteID CertifiedTimestamp
ClinicalTrialProtocolEthicsCommitteeApprovalNumber ClinicalTrialSeriesDescription ClinicalTrialSeriesID
ClinicalTrialTimePointDescription CommentsOnRadiationDose CommentsOnThePerformedProcedureStep CompensatorDescription
ConfidentialityConstraintOnPatientDataDescription ConsultingPhysicianIdentificationSequence ContainerComponentID
ContainerDescription ContentCreatorIdentificationCodeSequence ContributionDescription CountryOfResidence
CurrentObserverTrial CurrentPatientLocation CustodialOrganizationSequence DataSetTrailingPadding
DecompositionDescription DerivationDescription DeviceDescription DeviceSettingDescription DigitalSignaturesSequence
DischargeDiagnosisDescription DisplacementReferenceLabel DistributionAddress DoseReferenceDescription EntityDescription
EntityName EquipmentFrameOfReferenceDescription EthnicGroup EthnicGroupCodeSequence FilterLookupTableDescription
FixationDeviceDescription FractionGroupDescription FrameComments GantryID GeneratorID GPSAltitude GPSAltitudeRef
GPSAreaInformation GPSDestBearing GPSDestBearingRef GPSDestDistance GPSDestDistanceRef GPSDestLatitude
GPSDestLatitudeRef GPSDestLongitude GPSDestLongitudeRef GPSDifferential GPSDOP GPSImgDirection GPSImgDirectionRef
GPSLatitude GPSLatitudeRef GPSLongitude GPSLongitudeRef GPSMapDatum GPSMeasureMode GPSProcessingMethod GPSSatellites
GPSSpeed GPSSpeedRef GPSStatus GPSTrack GPSTrackRef GPSVersionID HumanPerformerOrganization IconImageSequence
IdentifyingComments ImageComments ImagePresentationComments ImagingServiceRequestComments Impressions
InstanceOriginStatus InstitutionAddress InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence
InsurancePlanIdentification IntendedRecipientsOfResultsIdentificationSequence InterpretationApproverSequence
InterpretationDiagnosisDescription InterpretationID InterpretationIDIssuer InterpretationText IssuerOfAdmissionID
IssuerOfAdmissionIDSequence IssuerOfClinicalTrialProtocolID IssuerOfClinicalTrialSeriesID IssuerOfClinicalTrialSiteID
IssuerOfClinicalTrialSubjectID IssuerOfClinicalTrialSubjectReadingID IssuerOfClinicalTrialTimePointID IssuerOfPatientID
IssuerOfServiceEpisodeID IssuerOfServiceEpisodeIDSequence LensMake LensModel LensSerialNumber LensSpecification
LongDeviceDescription MAC MakerNote MedicalAlerts MedicalRecordLocator MilitaryRank ModifiedAttributesSequence
ModifiedImageDescription ModifyingDeviceID MultienergyAcquisitionDescription NetworkID NonconformingDataElementValue
NonconformingModifiedAttributesSequence Occupation OrderCallbackPhoneNumber OrderCallbackTelecomInformation
OrderEntererLocation OriginalAttributesSequence Originator OtherClinicalTrialProtocolIDsSequence OtherPatientIDs
OtherPatientIDsSequence ParticipantSequence PatientAddress PatientAge PatientBirthTime PatientInstitutionResidence
PatientInsurancePlanCodeSequence PatientPrimaryLanguageCodeSequence PatientPrimaryLanguageModifierCodeSequence
PatientReligiousPreference PatientSize PatientTelecomInformation PatientTelephoneNumbers PatientWeight PatientComments
PatientSetupPhotoDescription PatientState PatientTransportArrangements PatientTreatmentPreparationMethodDescription
PatientTreatmentPreparationProcedureParameterDescription PerformedLocation PerformedProcedureStepDescription
PerformedProcedureStepID PerformedStationAETitle PerformedStationGeographicLocationCodeSequence PerformedStationName
PerformedStationNameCodeSequence PerformingPhysicianIdentificationSequence PersonAddress PersonTelecomInformation
PersonTelephoneNumbers PhysiciansOfRecordIdentificationSequence PhysiciansReadingStudyIdentificationSequence PlateID
PositionAcquisitionTemplateDescription PositionAcquisitionTemplateName PregnancyStatus PreMedication
PrescriptionDescription PriorTreatmentDoseDescription PyramidDescription PyramidLabel ReasonForOmissionDescription
ReasonForRequestedProcedureCodeSequence ReasonForStudy ReasonForTheImagingServiceRequest ReasonForTheRequestedProcedure
ReasonForVisit ReasonForVisitCodeSequence ReceivingAE ReferencedDigitalSignatureSequence ReferencedPatientAliasSequence
ReferencedPatientPhotoSequence ReferencedPatientSequence ReferencedSOPInstanceMACSequence ReferringPhysicianAddress
ReferringPhysicianTelephoneNumbers ReferringPhysicianIdentificationSequence RegionOfResidence RequestAttributesSequence
RequestedContrastAgent RequestedProcedureComments RequestedProcedureID RequestedProcedureLocation
RequestedSeriesDescription RequestingAE RequestingService RespiratoryMotionCompensationTechniqueDescription
ResponsibleOrganization ResultsComments ResultsDistributionListSequence ResultsID ResultsIDIssuer RetrieveAETitle
ROIDescription ROIGenerationDescription ROIObservationDescription ROIObservationLabel RTPlanDescription RTPlanName
ScheduledHumanPerformersSequence ScheduledPatientInstitutionResidence
ScheduledPerformingPhysicianIdentificationSequence ScheduledProcedureStepDescription ScheduledProcedureStepID
ScheduledProcedureStepLocation ScheduledStationAETitle ScheduledStationGeographicLocationCodeSequence
ScheduledStationName ScheduledStationNameCodeSequence ScheduledStudyLocation ScheduledStudyLocationAETitle
SeriesDescription ServiceEpisodeDescription ServiceEpisodeID SetupTechniqueDescription ShieldingDeviceDescription
SlideIdentifier SmokingStatus SourceManufacturer SpecialNeeds SpecimenAccessionNumber SpecimenDetailedDescription
SpecimenShortDescription StationAETitle StructureSetDescription StructureSetName StudyComments StudyDescription
StudyIDIssuer TelephoneNumberTrial TemplateLocalVersion TemplateVersion TextComments TextString TimezoneOffsetFromUTC
TopicAuthor TopicKeywords TopicSubject TopicTitle TransducerIdentificationSequence TreatmentSites UDISequence
UniqueDeviceIdentifier VerbalSourceIdentifierCodeSequenceTrial VisitComments WaveformFilterDescription XRayDetectorLabel
"""

EMPTY = """
AccessionNumber AcquisitionContextSequence BarcodeValue ClinicalTrialCoordinatingCenterName ClinicalTrialProtocolName
ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialTimePointID ConceptualVolumeCombinationDescription
ConceptualVolumeDescription ContrastBolusAgent DeviceAlternateIdentifier DeviceSerialNumber
FillerOrderNumberImagingServiceRequest FractionationNotes InstitutionCodeSequence InstitutionName
IssuerOfTheContainerIdentifierSequence IssuerOfTheSpecimenIdentifierSequence LabelText ManufacturerDeviceIdentifier
OperatorIdentificationSequence PatientBirthDate PatientID PatientSex PatientSexNeutered
PlacerOrderNumberImagingServiceRequest
PrescriptionNotes PrescriptionNotesSequence RadiationGenerationModeDescription ReasonForSuperseding
RequestedProcedureDescription RTAccessoryDeviceSlotID RTAccessoryHolderSlotID RTPhysicianIntentNarrative
SourceOfPreviousValues SourceSerialNumber SpecimenPreparationSequence StationName StudyID TreatmentMachineName
TreatmentTechniqueNotes VerifyingObserverIdentificationCodeSequence
"""

DUMMY = """
AcquisitionDeviceProcessingDescription AcquisitionFieldOfViewLabel AnnotationGroupLabel CertificateOfSigner
ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolID ClinicalTrialSponsorName ClinicalTrialSubjectID
ClinicalTrialSubjectReadingID ContainerIdentifier ContentSequence ContextGroupLocalVersion DestinationAE DetectorID
DeviceLabel EncapsulatedDocument EntityLabel EntityLongLabel FlowIdentifier FlowIdentifierSequence
FunctionalSyncPulse GraphicAnnotationSequence InterlockDescription InterlockOriginDescription ModifyingSystem
PersonIdentificationCodeSequence ProtocolName RadiationDoseIdentificationLabel RadiationDoseInVivoMeasurementLabel
RadiationGenerationModeLabel ReasonForTheAttributeModification RTPlanLabel RTPrescriptionLabel RTToleranceSetLabel
RTTreatmentApproachLabel SelectorAEValue SelectorASValue SelectorLOValue SelectorLTValue SelectorOBValue
SelectorSHValue SelectorSTValue SelectorUNValue SelectorURValue SelectorUTValue SourceIdentifier SpecimenIdentifier
StructureSetLabel TreatmentPositionGroupLabel TreatmentSite TreatmentToleranceViolationDescription UserContentLabel
UserContentLongLabel VerifyingObserverSequence VerifyingOrganization XRayDetectorID XRaySourceID
"""

# What an attribute that must have a value gets when it is cleaned; the scan knows it again.
DUMMY_TEXT = "ANON"

# What our own objects say of themselves (`deliver.structures`): words that are always the same, and counts.
_CLEANED = r"largest of \d{1,6} parts \(-\d{1,9} voxels\)|holes filled \(\+\d{1,9} voxels\)"
OWN_TEXT = re.compile(
    rf"(?:as in the case|predicted); (?:not cleaned|(?:{_CLEANED})(?:, (?:{_CLEANED})){{0,3}})"
    r"|(?:not cleaned|cleaned: largest part of \d{1,4}, holes of \d{1,4} structures)"
    r"|STRUCTURES|PREDICTED|Structures of a case|PREDICTED structures"
)

# Newer than pydicom's dictionary knows by keyword, or without one: identifiers of digital signatures and ROI creators.
REMOVE_TAGS = (0x3006002D, 0x3006002E, 0x3006004D, 0x3006004E, 0xFFFAFFFA, 0xFFFCFFFC)


def _tags(keywords: str) -> dict[int, str]:
    # An edition of the standard may know an attribute that the installed pydicom does not yet: it can't be parsed then.
    found = {tag_for_keyword(keyword): keyword for keyword in keywords.split()}
    return {int(tag): keyword for tag, keyword in found.items() if tag is not None}


REMOVE_ATTRIBUTES = {**_tags(REMOVE), **dict.fromkeys(REMOVE_TAGS, "")}
EMPTY_ATTRIBUTES = _tags(EMPTY)
DUMMY_ATTRIBUTES = _tags(DUMMY)
LISTED = {**REMOVE_ATTRIBUTES, **EMPTY_ATTRIBUTES, **DUMMY_ATTRIBUTES}

# VRs whose attributes are all taken for identifying: dates and times, and names of persons.
DATE_VRS = frozenset({"DA", "TM", "DT"})
NAME_VRS = frozenset({"PN"})
# Identifiers that a pseudonym may stand in, as in a person's name.
PSEUDONYM_KEYWORDS = frozenset(
    {"PatientID", "OtherPatientIDs", "StudyID", "AccessionNumber", "ClinicalTrialSubjectID", "AdmissionID"}
)
# Curve Data (50xx), Overlay Data and Comments (60xx,3000), (60xx,4000): groups that repeat.
CURVE_GROUPS = range(0x5000, 0x5020)
OVERLAY_GROUPS = range(0x6000, 0x6020)
OVERLAY_ELEMENTS = frozenset({0x3000, 0x4000})
